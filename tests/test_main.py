"""The command line: trains, resumes bit-equal, refuses bad input in one line."""

import importlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from logo_jax import compose, main, workdir
from logo_jax.checkpoints import Checkpoints
from logo_jax.data import sources
from logo_jax.evaluate import evaluate
from logo_jax.metrics import MetricWriter, Progress
from logo_jax.step import make_mesh
from logo_jax.train import train

TINY = {
    "data.source": "npz",
    "data.batch_size": 8,
    "crops.global_crops": (2, 8, (0.4, 1.0)),
    "crops.local_crops": (2, 8, (0.1, 0.6)),
    "encoder.stem": "imagenet",
    "encoder.width": 4,
    "encoder.head_hidden": 8,
    "encoder.embedding_dim": 8,
    "logo.regressor_width": 8,
    "train.num_steps": 4,
    "train.log_every_steps": 1,
    "train.checkpoint_every_steps": 2,
    "monitor.knn": ((3, 0.1),),
    "monitor.knn_every_steps": 2,
}


SPEED = ("images_per_second", "data_wait_percent")


@pytest.fixture(name="arrays")
def fixture_arrays(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 10)):
        images = rng.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
        labels = np.arange(count) % 3
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels)
    return tmp_path


def tiny_config(name, variant, arrays, **changes):
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    fields = TINY | {"data.path": str(arrays)} | changes
    if variant == "baseline":
        del fields["crops.local_crops"]
    if "moco" in name:
        fields |= {"method.queue_size": 64, "batch_norm": "split:2"}
    config.update_from_flattened_dict(fields)
    return config


def run(config, folder, *, until=None, num_devices=1):
    """What main does, stopping after `until` steps as a kill would."""
    experiment = compose.experiment(config, make_mesh(jax.devices()[:num_devices]))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = experiment.init()
        start, state = checkpoints.restore_latest(state) or (0, state)
        loader = Stopping(experiment.loader, until)
        with (
            MetricWriter(folder, resume_step=start) as writer,
            Progress(4, initial=start, quiet=True) as progress,
        ):
            return train(
                state,
                experiment.train_step,
                loader,
                experiment.description.plan,
                monitor=experiment.monitor,
                checkpoints=checkpoints,
                writer=writer,
                progress=progress,
                clock=map(float, range(1000)).__next__,
            )


class Stopping:
    """A loader that fails when asked for the batch of a given step."""

    def __init__(self, loader, at):
        self.loader, self.at = loader, at
        self.images_per_step = loader.images_per_step
        self.waits = loader.waits

    def batches(self, start, stop):
        for step, batch in enumerate(self.loader.batches(start, stop), start):
            if step == self.at:
                raise KeyboardInterrupt(f"stopped at {step}")
            yield batch


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("name", "variant"), [("cifar10_moco", "logo"), ("cifar10_simsiam", "multicrop")]
)
def test_a_resumed_run_ends_bit_equal_to_one_that_never_stopped(
    name, variant, arrays, tmp_path
):
    config = tiny_config(name, variant, arrays)
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "stopped", until=3)
    resumed = run(config, tmp_path / "stopped")
    for (path, a), b in zip(
        jax.tree.leaves_with_path(whole), jax.tree.leaves(resumed), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    keep = [
        [{k: v for k, v in r.items() if k not in SPEED} for r in records(f)]
        for f in (tmp_path / "whole", tmp_path / "stopped")
    ]
    assert keep[0] == keep[1]
    assert [r["step"] for r in keep[0]] == [1, 2, 2, 3, 4, 4]


def test_a_run_goes_on_on_another_number_of_devices(arrays, tmp_path):
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


def test_several_seeds_are_recorded_by_mean_spread_and_each(arrays, tmp_path):
    changes = {"seed": 3, "seeds": 2}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    workdir.claim(tmp_path, config.to_dict())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, until=3)
    run(config, tmp_path)
    rows = records(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 2, 3, 4, 4]
    for row, name in ((rows[0], "loss"), (rows[-1], "knn/k3_t0.1/top1")):
        values = [row[f"{name}/seed_{seed}"] for seed in (3, 4)]
        assert row[name] == pytest.approx(np.mean(values))
        assert row[f"{name}/std"] == pytest.approx(np.std(values, ddof=1))
    assert rows[0]["loss/seed_3"] != rows[0]["loss/seed_4"]
    step, evaluated = evaluate(tmp_path)
    assert step == 4
    assert evaluated == {k: v for k, v in rows[-1].items() if k != "step"}


@pytest.mark.parametrize("first", [0, 3])
def test_each_of_several_seeds_draws_and_meets_what_it_does_alone(first, arrays):
    def experiment(**changes):
        config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
        return compose.experiment(config, make_mesh(jax.devices()[:1]))

    together = experiment(seed=first, seeds=2)
    for i in range(2):
        alone = experiment(seed=first + i)
        for purposes in (("parameters",), ("crops", "steps")):
            keys = [e.description.keys(*purposes) for e in (together, alone)]
            np.testing.assert_array_equal(
                *map(jax.random.key_data, (keys[0][i], keys[1]))
            )
        (examples, epoch), (examples_alone, epoch_alone) = (
            next(e.loader.batches(4, 5)) for e in (together, alone)
        )
        for both, one in zip(examples, examples_alone, strict=True):
            np.testing.assert_array_equal(both[i], one)
        assert epoch == epoch_alone == 1


def test_multicrop_and_logo_differ_only_by_the_repulsion():
    configs = [
        importlib.import_module("configs.cifar10_simsiam").get_config(v).to_dict()
        for v in ("multicrop", "logo")
    ]
    assert workdir.differences(*configs) == ["logo.update_kind: none -> released"]


def test_a_field_nothing_reads_is_refused(arrays):
    config = tiny_config("cifar10_simsiam", "logo", arrays)
    with config.unlocked():
        config.optimizer.nesterov = True
    with pytest.raises(ValueError, match="nothing reads config.optimizer.nesterov"):
        compose.describe(config, num_devices=1)


def test_a_changed_config_in_an_old_workdir_is_refused_with_the_difference(tmp_path):
    workdir.claim(tmp_path, {"train": {"num_epochs": 200}, "crops": (2, 3)})
    workdir.claim(tmp_path, {"train": {"num_epochs": 200}, "crops": (2, 3)})
    with pytest.raises(ValueError, match="train.num_epochs: 200 -> 100"):
        workdir.claim(tmp_path, {"train": {"num_epochs": 100}, "crops": (2, 3)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optimizer.learning_rat=0.1"], "learning_rat"),
        (["--config.data.batch_size=many"], "batch_size"),
        (["--config.data.source=npz", "--config.data.path=/nowhere"], "/nowhere"),
        (["--process_id=1"], "--num_processes=None and --process_id=1 must be given"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(arguments, message, tmp_path):
    command = [sys.executable, "-m", "logo_jax.main", f"--workdir={tmp_path / 'run'}"]
    command += ["--config=configs/cifar10_simsiam.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "run").exists()


def run_main(config, folder):
    """The command in this process; returns its exit code, 0 where it ends."""
    with flagsaver.flagsaver(config=config, workdir=str(folder), quiet=True):
        try:
            main.main([])
        except SystemExit as end:
            return end.code
    return 0


@pytest.fixture(name="parsed_flags", autouse=True)
def fixture_parsed_flags():
    flags.FLAGS.mark_as_parsed()


def damage(folder, step):
    for file in (folder / "checkpoints" / str(step)).rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-10])


def test_a_run_whose_checkpoints_are_damaged_falls_back_or_ends_with_one_line(
    arrays, tmp_path, capfd
):
    config = tiny_config("cifar10_simsiam", "baseline", arrays)
    folder = tmp_path / "run"
    assert run_main(config, folder) == 0
    rows = (folder / "metrics.csv").read_text().splitlines()
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
    assert "started from step 0 again" in capfd.readouterr().err


def test_a_full_disk_ends_the_run_with_one_line_and_leaves_what_was_saved(
    arrays, tmp_path, capfd
):
    config = tiny_config("cifar10_simsiam", "baseline", arrays)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, until=3)
    workdir.claim(tmp_path / "claimed", config.to_dict())
    shutil.copy(tmp_path / "claimed" / "config.json", folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capfd.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        code = run_main(config, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    errors = [x for x in capfd.readouterr().err.splitlines() if "resumed" not in x]
    assert code == 2
    assert errors[-1].startswith("error: a checkpoint cannot be written to")
    assert "File too large" in errors[-1]
    assert not any("Traceback" in line for line in errors)
    assert run_main(config, folder) == 0
    assert "resumed from step 2 of 4" in capfd.readouterr().err


def test_sigterm_ends_the_command_with_its_step_saved(arrays, tmp_path, capfd):
    """The signal comes from a thread, once there is a line of metrics."""
    changes = {"train.num_steps": 10**6, "monitor.knn_every_steps": 0}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    folder = tmp_path / "run"

    def tell():
        file, never = folder / "metrics.jsonl", threading.Event()
        while not (file.exists() and file.stat().st_size):
            never.wait(0.01)  # a busy loop would keep the other thread from compiling
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    assert run_main(config, folder) == 0
    last = records(folder)[-1]["step"]
    assert f"stopped by SIGTERM after step {last}, which is saved" in (
        capfd.readouterr().err
    )
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == last


@pytest.mark.parametrize("folder", ["file/run", "/proc/self"])
def test_a_work_folder_that_cannot_be_written_ends_with_one_line(
    folder, arrays, tmp_path, capfd
):
    (tmp_path / "file").write_text("")
    config = tiny_config("cifar10_simsiam", "baseline", arrays)
    assert run_main(config, tmp_path / folder) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"workdir {tmp_path / folder} must be writable" in line


def test_a_second_run_in_one_folder_is_refused_before_it_loads_anything(
    arrays, tmp_path, capfd
):
    config = tiny_config("cifar10_simsiam", "baseline", arrays / "nowhere")
    with workdir.locked(tmp_path):
        assert run_main(config, tmp_path) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"is in use by process {os.getpid()} on {socket.gethostname()}" in line


def test_training_through_tfds_never_imports_tensorflow(arrays, tmp_path):
    from logo_jax.prepare import prepare

    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 8)):
        images = rng.integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(count) % 10
        np.savez(arrays / f"{split}.npz", images=images, labels=labels)
    data_dir = str(tmp_path / "tfds")
    prepare("cifar10", data_dir, str(arrays))
    changes = {"data.source": "tfds", "data.path": "", "data.data_dir": data_dir}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    state = run(config, tmp_path / "run")
    assert int(state.step) == 4
    assert "tensorflow" not in sys.modules
    assert len(sources.load("tfds", name="cifar10", data_dir=data_dir).queries) == 8
