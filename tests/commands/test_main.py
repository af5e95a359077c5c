"""The command line: trains, resumes bit-equal, refuses bad input in one line."""

import importlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from logo_jax import main
from logo_jax.data.load import DataLocation, load_images
from logo_jax.experiment import make_experiment, make_spec
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import train
from tests.backbones import BACKBONE
from tests.run_commands import evaluated

TINY = {
    "data.source": "npz",
    "data.batch_size": 8,
    "crops.global_crops": (2, 8, (0.4, 1.0)),
    "crops.local_crops": (2, 8, (0.1, 0.6)),
    "augment.jitter_prob": 0.0,  # changes of color take long to compile
    "augment.grayscale_prob": 0.0,
    "encoder.backbone": BACKBONE,
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
    config = importlib.import_module(f"logo_jax.configs.{name}").get_config(variant)
    fields = TINY | {"data.path": str(arrays)} | changes
    if variant == "baseline":
        del fields["crops.local_crops"]
    if "moco" in name:
        fields |= {"method.queue_size": 64, "batch_norm": "split:2"}
    config.update_from_flattened_dict(fields)
    return config


def run(config, folder, *, until=None, num_devices=1):
    """What main does, stopping after `until` steps as a kill would."""
    experiment = make_experiment(config, make_mesh(jax.devices()[:num_devices]))
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        state = experiment.init()
        start, state = checkpoints.restore_latest(state) or (0, state)
        loader = Stopping(experiment.loader, until)
        with (
            MetricWriter(folder, resume_step=start) as writer,
            Progress(4, initial=start, quiet=True) as progress,
        ):
            schedule = experiment.spec.schedule
            clock = map(float, range(1000)).__next__
            return train(
                state,
                experiment.train_step,
                loader,
                schedule,
                log=TrainLog(writer, progress, schedule, clock=clock),
                checkpoints=checkpoints,
                monitor=experiment.monitor,
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_several_seeds_are_recorded_by_mean_spread_and_each(arrays, tmp_path):
    changes = {"seed": 3, "seeds": 2}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    workdir.claim_workdir(tmp_path, config.to_dict())
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
    report = evaluated(tmp_path)
    assert report["encoder"] == "step 4"
    assert report["values"] == {k: v for k, v in rows[-1].items() if k != "step"}


def test_a_command_looks_for_garbage_less_often_than_python_does_by_default():
    code = "import gc; from logo_jax import _cli; _cli.run(gc.get_threshold)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("(10000, ")  # an exit code that is no number


@pytest.mark.parametrize("first", [0, 3])
def test_each_of_several_seeds_draws_and_meets_what_it_does_alone(first, arrays):
    def experiment(**changes):
        config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
        return make_experiment(config, make_mesh(jax.devices()[:1]))

    together = experiment(seed=first, seeds=2)
    for i in range(2):
        alone = experiment(seed=first + i)
        for purposes in (("parameters",), ("crops", "steps")):
            keys = [e.spec.keys(*purposes) for e in (together, alone)]
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
        importlib.import_module("logo_jax.configs.cifar10_simsiam")
        .get_config(v)
        .to_dict()
        for v in ("multicrop", "logo")
    ]
    assert workdir.differences(*configs) == ["logo.update_kind: none -> released"]


def test_an_unknown_field_is_refused(arrays):
    config = tiny_config("cifar10_simsiam", "logo", arrays)
    with config.unlocked():
        config.optimizer.nesterov = True
    with pytest.raises(ValueError, match="unknown config field config.optimizer.nest"):
        make_spec(config, num_devices=1)


def test_a_changed_config_in_an_old_workdir_is_refused_with_the_difference(tmp_path):
    workdir.claim_workdir(tmp_path, {"train": {"num_epochs": 200}, "crops": (2, 3)})
    workdir.claim_workdir(tmp_path, {"train": {"num_epochs": 200}, "crops": (2, 3)})
    with pytest.raises(ValueError, match="train.num_epochs: 200 -> 100"):
        workdir.claim_workdir(tmp_path, {"train": {"num_epochs": 100}, "crops": (2, 3)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optimizer.learning_rat=0.1"], "learning_rat"),
        (["--config.data.batch_size=many"], "batch_size"),
        (["--config.data.source=npz", "--config.data.path=/nowhere"], "/nowhere"),
        (["--process_id=1"], "--num_processes=None and --process_id=1 must be given"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(
    arguments, message, tmp_path, capfd
):
    command = ["--config=configs/cifar10_simsiam.py", *arguments]
    line = refused(capfd, *command, f"--workdir={tmp_path / 'run'}")
    assert message in line
    assert not (tmp_path / "run").exists()


def refused(capfd, *arguments):
    """Returns the one line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as end:
        main.main(arguments)
    assert end.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.slow
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
    assert (
        len(
            load_images(DataLocation("tfds", name="cifar10", data_dir=data_dir)).queries
        )
        == 8
    )


@pytest.mark.slow
def test_a_run_is_evaluated_from_any_folder_and_resumed_on_moved_data(
    arrays, tmp_path, monkeypatch, capsys
):
    for name in ("here/data", "there"):
        (tmp_path / name).mkdir(parents=True)
    for file in arrays.glob("*.npz"):
        file.rename(tmp_path / "here" / "data" / file.name)
    fields = TINY | {"train.num_steps": 1}
    del fields["crops.local_crops"]
    line = ["--config=cifar10_simsiam:baseline", f"--workdir={tmp_path / 'run'}"]
    line += [f"--config.{name}={value}" for name, value in fields.items()]
    monkeypatch.chdir(tmp_path / "here")
    main.main([*line, "--config.data.path=data"])
    monkeypatch.chdir(tmp_path / "there")
    report = evaluated(tmp_path / "run")
    assert report["values"] == {
        name: value
        for name, value in records(tmp_path / "run")[-1].items()
        if name != "step"
    }
    (tmp_path / "here" / "data").rename(tmp_path / "there" / "moved")
    capsys.readouterr()
    main.main([*line, "--config.data.path=moved", "--config.data.threads=1"])
    lines = capsys.readouterr().err.splitlines()
    moved = tmp_path / "there" / "moved"
    assert lines[0] == (
        "the run gets new values that change nothing it learns: data.path: "
        f"{tmp_path / 'here' / 'data'} -> {moved}; data.threads: 0 -> 1"
    )
    assert "resumed from step 1 of 1" in lines
    assert workdir.read_config(tmp_path / "run")["data"]["path"] == str(moved)
