"""A run that collapses is rolled back, and ends with a one-line error."""

import contextlib
import json
import subprocess
import sys
import types

import pytest

from logo_jax import main
from tests.backbones import BACKBONE
from tests.commands.test_main import fixture_arrays  # noqa: F401

FLAGS = {
    "data.source": "npz",
    "data.batch_size": 8,
    "crops.global_crops": "(2,8,(0.4,1.0))",
    "encoder.backbone": BACKBONE,
    "encoder.stem": "imagenet",
    "encoder.width": 4,
    "encoder.head_hidden": 8,
    "encoder.embedding_dim": 8,
    "method.queue_size": 64,
    "batch_norm": "per_device",
    "augment.jitter_prob": 0.0,
    "augment.grayscale_prob": 0.0,
    "optimizer.learning_rate": 3.2,  # too high: the embeddings collapse
    "train.num_steps": 400,
    "train.checkpoint_every_steps": 20,
    "monitor.knn": "((3,0.1),)",
    "monitor.knn_every_steps": 0,
    "monitor.health": "rollback",
}


def test_a_loss_that_is_not_finite_is_one_line(monkeypatch, tmp_path, capsys):
    def train(_):
        raise FloatingPointError("the loss of step 3\nis [nan 1.]; lower the rate")

    @contextlib.contextmanager
    def open_run(*_, **__):
        yield types.SimpleNamespace(train=train)

    monkeypatch.setattr(main, "open_run", open_run)
    with pytest.raises(SystemExit) as end:
        main.main(["--config=quickstart", f"--workdir={tmp_path}"])
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: the loss of step 3 is [nan 1.]; lower the rate"


@pytest.mark.slow
def test_a_collapsed_run_ends_after_three_rollbacks(arrays):
    folder = arrays / "run"
    folder.mkdir()
    (folder / "rollbacks.json").write_text("[40, 60]")  # rollbacks of earlier processes
    command = [sys.executable, "-m", "logo_jax.main", f"--workdir={folder}", "--quiet"]
    command += ["--config=configs/cifar10_moco.py:baseline"]
    command += [f"--config.{name}={value}" for name, value in FLAGS.items()]
    command += [f"--config.data.path={arrays}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    (rollback,) = (line for line in lines if line.endswith("rollback 3 of 3"))
    assert rollback.startswith("collapsed at step ")
    assert lines[-1].startswith("error: collapsed at step ")
    assert "Traceback" not in done.stderr
    *earlier, step = json.loads((folder / "rollbacks.json").read_text())
    assert earlier == [40, 60]
    assert f"step {step}:" in rollback
