"""A run killed in a step, a save and an evaluation ends like an intact run."""

import random
import subprocess

import pytest

from benchmarks import kill_soak
from tests.backbones import BACKBONE
from tests.xla_flags import DEVICES

STEPS = 50
FAST = {
    "encoder.backbone": BACKBONE,
    "augment.jitter_prob": 0.0,
    "augment.grayscale_prob": 0.0,
}


@pytest.mark.slow
def test_a_run_killed_at_three_moments_ends_like_an_intact_run(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("XLA_FLAGS", DEVICES.format(1))
    monkeypatch.setattr(kill_soak, "FIELDS", kill_soak.FIELDS | FAST)
    kill_soak.write_data(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(kill_soak.command(whole, tmp_path, STEPS), check=True)
    line = kill_soak.command(killed, tmp_path, STEPS)
    rng = random.Random(0)
    capfd.readouterr()
    for moment in ("step", "save", "evaluation"):
        kill_soak.killed_at(moment, line, killed, rng, None)
    subprocess.run(line, check=True)
    assert "is damaged" not in capfd.readouterr().err
    assert kill_soak.final_state(killed) == kill_soak.final_state(whole)
    assert kill_soak.metrics(killed) == kill_soak.metrics(whole)
    steps = [row["step"] for row in kill_soak.metrics(whole) if "loss" in row]
    assert steps == list(range(1, STEPS + 1))


def test_a_run_that_ends_before_it_is_killed_is_an_error(tmp_path):
    rng = random.Random(0)
    with pytest.raises(RuntimeError, match="ended by itself, with exit code 1"):
        kill_soak.killed_at("step", ["false"], tmp_path, rng, None)
