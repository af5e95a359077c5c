"""`logo_jax.main` with damaged, full, read-only or locked folders, and signals."""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import tempfile
import threading

import jax
import numpy as np
import pytest

from logo_jax import main
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import fixture_arrays, records, run, tiny_config
from tests.run_commands import write_config

__all__ = ["fixture_arrays"]


def run_main(config, folder):
    """Runs the command in this process; returns its exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        file = write_config(pathlib.Path(scratch) / "config.py", config)
        try:
            main.main([f"--config={file}", f"--workdir={folder}"])
        except SystemExit as end:
            return end.code
    return 0


def damage(folder, step):
    for file in (folder / "checkpoints" / str(step)).rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped_and_a_run_with_no_other_is_refused(
    arrays, tmp_path, capfd
):
    config = tiny_config("cifar10_simsiam", "baseline", arrays)
    folder = tmp_path / "run"
    assert run_main(config, folder) == 0
    rows = (folder / "metrics.csv").read_text().splitlines()
    ran_on = json.loads((folder / "machine.json").read_text())
    assert ran_on["versions"]["jax"] == jax.__version__
    damage(folder, 4)
    capfd.readouterr()
    assert run_main(config, folder) == 0
    err = capfd.readouterr().err
    assert "checkpoint 4 is damaged" in err
    assert "resumed from step 2 of 4" in err
    assert len((folder / "metrics.csv").read_text().splitlines()) == len(rows)
    damage(folder, 2)
    damage(folder, 4)
    before = (folder / "metrics.jsonl").read_bytes()
    assert run_main(config, folder) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: all checkpoints in")
    assert (folder / "metrics.jsonl").read_bytes() == before
    shutil.rmtree(folder / "checkpoints")
    assert run_main(config, folder) == 0
    assert "starting again from step 0" in capfd.readouterr().err


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_one_line_and_keeps_earlier_checkpoints(
    arrays, tmp_path, capfd
):
    config = tiny_config("cifar10_simsiam", "baseline", arrays)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, until=3)
    workdir.claim_workdir(tmp_path / "claimed", config.to_dict())
    shutil.copy(tmp_path / "claimed" / "config.json", folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capfd.readouterr()
    cached = "jax_persistent_cache_min_compile_time_secs"
    shortest = jax.config.values[cached]
    jax.config.update(cached, 1e9)  # no half of an entry of the cache
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        code = run_main(config, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        jax.config.update(cached, shortest)
    errors = [x for x in capfd.readouterr().err.splitlines() if "resumed" not in x]
    assert code == 2
    assert errors[-1].startswith("error: a checkpoint cannot be written to")
    assert "File too large" in errors[-1]
    assert not any("Traceback" in line for line in errors)
    code2 = run_main(config, folder)
    err2 = capfd.readouterr().err
    assert code2 == 0, err2
    assert "resumed from step 2 of 4" in err2


@pytest.mark.slow
def test_sigterm_saves_the_step_and_ends_the_command(arrays, tmp_path, capfd):
    """A thread sends the signal when the run has written a line of metrics."""
    changes = {"train.num_steps": 10**6, "monitor.knn_every_steps": 0}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    folder = tmp_path / "run"

    def send():
        file, never = folder / "metrics.jsonl", threading.Event()
        while not (file.exists() and file.stat().st_size):
            never.wait(0.01)  # a busy loop would slow down compilation
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send, daemon=True).start()
    assert run_main(config, folder) == 0
    last = records(folder)[-1]["step"]
    assert f"stopped by SIGTERM after step {last}, which is saved" in (
        capfd.readouterr().err
    )
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == last


@pytest.mark.parametrize("folder", ["file/run", "/proc/self"])
def test_a_workdir_that_cannot_be_written_is_reported_in_one_line(
    folder, arrays, tmp_path, capfd
):
    (tmp_path / "file").write_text("")
    config = tiny_config("cifar10_simsiam", "baseline", arrays)
    assert run_main(config, tmp_path / folder) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"--workdir={tmp_path / folder} must be a folder that can be written" in line


def test_a_second_run_in_one_folder_is_refused_before_loading_data(
    arrays, tmp_path, capfd
):
    config = tiny_config("cifar10_simsiam", "baseline", arrays / "nowhere")
    with workdir.lock_workdir(tmp_path):
        assert run_main(config, tmp_path) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"is in use by process {os.getpid()} on {socket.gethostname()}" in line


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_devices(arrays, tmp_path):
    changes = {"batch_norm": "global", "train.checkpoint_every_steps": 1}
    changes |= {"monitor.knn_every_steps": 0}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    whole = run(config, tmp_path / "whole")
    for devices, until in ((1, 1), (4, 3)):
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "moved", until=until, num_devices=devices)
    moved = run(config, tmp_path / "moved", num_devices=2)
    assert [r["step"] for r in records(tmp_path / "moved")] == [1, 2, 3, 4, 4]
    for (path, a), b in zip(
        jax.tree.leaves_with_path(whole), jax.tree.leaves(moved), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)
