"""Starting weights: a backbone from a file or a run, and the whole state of a run."""

import shutil

import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

import logo_jax
from logo_jax import main
from logo_jax.configs import load
from logo_jax.experiment import make_spec
from logo_jax.experiment.starting import first_state
from logo_jax.interop import huggingface, torchvision
from logo_jax.interop.backbone import Backbone
from logo_jax.methods.base import ENCODER, KEY_ENCODER
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import TINY, fixture_arrays
from tests.golden import test_backbones as golden

__all__ = ["fixture_arrays"]

RESNET = TINY | {
    "data.source": "npz",
    "encoder.backbone": "resnet10",
    "encoder.stem": "imagenet",
    "encoder.width": 4,
}
BASELINE = {k: v for k, v in TINY.items() if k != "crops.local_crops"}
CONFIG = "cifar10_simsiam:baseline"


@pytest.fixture(name="backbone", scope="module")
def fixture_backbone():
    return Backbone(*golden.small_resnet())


@pytest.fixture(name="file")
def fixture_file(backbone, tmp_path):
    file = tmp_path / "moco.safetensors"
    tensors = torchvision.tensors_of(backbone)
    save_file({f"module.encoder_q.{k}": v for k, v in tensors.items()}, file)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_files_backbone_is_that_of_the_encoder_and_the_momentum_encoder(
    seeds, backbone, file
):
    """Everything else is initialized as without starting weights."""
    fields = RESNET | {"encoder.weights": str(file), "seeds": seeds}
    fields |= {"method.queue_size": 64, "batch_norm": "split:2"}
    spec = make_spec(load("cifar10_moco:logo", fields).to_dict(), num_devices=1)
    found, usual = first_state(spec), spec.first_state()
    for network in (ENCODER, KEY_ENCODER):
        variables, plain = found.variables(network), usual.variables(network)
        for group, leaves in variables.items():
            for x, y in zip(
                jax.tree.leaves(leaves["backbone"]),
                jax.tree.leaves(backbone.variables[group]),
                strict=True,
            ):
                np.testing.assert_array_equal(x, np.broadcast_to(y, x.shape))
        jax.tree.map(
            np.testing.assert_array_equal,
            variables["params"]["head"],
            plain["params"]["head"],
        )
    for name in ("queue", "cursor"):
        np.testing.assert_array_equal(found.memory[name], usual.memory[name])


@pytest.mark.slow
def test_a_folder_of_transformers_gives_the_state_of_its_file(backbone, file, tmp_path):
    huggingface.write(backbone, tmp_path / "transformers")
    states = []
    for source in (file, tmp_path / "transformers"):
        fields = RESNET | {"encoder.weights": str(source)}
        config = load("cifar10_simsiam:logo", fields).to_dict()
        states.append(first_state(make_spec(config, num_devices=1)))
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.fixture(name="run")
def fixture_run(arrays):
    """A complete run of four steps."""
    fields = BASELINE | {"data.path": str(arrays)}
    return logo_jax.pretrain(
        config=CONFIG, workdir=arrays / "first", quiet=True, **fields
    )


def restored(folder):
    config = workdir.read_config(folder)
    like = jax.eval_shape(make_spec(config, num_devices=1).init)
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_latest(like)[1]


@pytest.mark.slow
def test_a_run_from_weights_begins_with_their_accuracy_and_resumes_without_them(
    run, arrays, tmp_path, capfd
):
    fields = BASELINE | {"data.path": str(arrays), "monitor.trivial_baselines": True}
    fields |= {"encoder.weights": str(run.workdir)}
    call = {"config": CONFIG, "workdir": tmp_path / "second"}
    second = logo_jax.pretrain(**call, **fields)
    printed = capfd.readouterr().err
    accuracy = run.metrics[-1]["knn/k3_t0.1/top1"]
    lines = printed.splitlines()
    first, *_, last = (i for i, x in enumerate(lines) if x.startswith("baseline "))
    assert lines[first - 1].startswith("step 2/4 ")  # they follow the first steps
    assert lines[last].endswith(f": starting weights, kNN {accuracy:.1f} %")
    assert lines[last + 1].startswith("step 2: kNN ")
    assert last - first == 2  # step 4 is evaluated without them
    record = second.config["encoder"]["weights_record"]
    leaves = jax.tree.leaves(run.encoder.variables)
    numbers = sum(leaf.size for leaf in leaves)
    expected = f"step 4, {len(leaves)} tensors, {numbers:,} numbers, crc32 "
    assert record.startswith(expected)
    assert f"starting from {run.workdir} ({record})" in printed.splitlines()[0]
    shutil.rmtree(run.workdir)
    assert logo_jax.pretrain(**call, **fields).metrics == second.metrics
    assert "resumed from step 4 of 4" in capfd.readouterr().err
    shutil.rmtree(second.workdir / "checkpoints")
    with pytest.raises(logo_jax.InputError, match="does not exist; give the folder"):
        logo_jax.pretrain(**call, **fields)


@pytest.mark.slow
def test_a_run_resumed_before_its_first_evaluation_prints_the_same_baselines(
    arrays, tmp_path, capfd
):
    """The untrained network is computed again; later resumes print no baselines."""
    fields = BASELINE | {"data.path": str(arrays), "monitor.trivial_baselines": True}
    fields |= {"train.checkpoint_every_steps": 1, "train.keep_newest": 4}
    call = {"config": CONFIG, "workdir": tmp_path / "run"}
    run = logo_jax.pretrain(**call, **fields)
    evaluated = [row["step"] for row in run.metrics if "knn/k3_t0.1/top1" in row]
    assert evaluated == [2, 4]

    def baselines():
        lines = capfd.readouterr().err.splitlines()
        return [line for line in lines if line.startswith("baseline ")]

    expected = baselines()
    assert len(expected) == 3
    for resumed_from, printed in ((3, []), (2, []), (1, expected)):
        for step in range(resumed_from + 1, 5):
            shutil.rmtree(run.workdir / "checkpoints" / str(step), ignore_errors=True)
        assert logo_jax.pretrain(**call, **fields).metrics == run.metrics
        assert baselines() == printed


@pytest.mark.slow
@pytest.mark.parametrize("field", ["encoder.weights", "train.start_from"])
def test_a_run_that_starts_again_takes_the_same_weights_or_is_refused(
    field, run, arrays, tmp_path
):
    fields = BASELINE | {"data.path": str(arrays), field: str(run.workdir)}
    call = {"config": CONFIG, "workdir": tmp_path / "second", "quiet": True}
    first = logo_jax.pretrain(**call, **fields).metrics
    shutil.rmtree(tmp_path / "second" / "checkpoints")
    saved = run.workdir / "checkpoints"
    with CheckpointManager(saved) as checkpoints:  # the first run is trained further
        checkpoints.save(5, jax.tree.map(np.zeros_like, restored(run.workdir)))
    again = logo_jax.pretrain(**call, **fields).metrics
    losses = [[row.get("loss") for row in rows] for rows in (first, again)]
    assert losses[0] == losses[1]

    shutil.rmtree(tmp_path / "second" / "checkpoints")
    shutil.rmtree(saved / "4")
    with pytest.raises(logo_jax.InputError, match="has no checkpoint of step 4, only"):
        logo_jax.pretrain(**call, **fields)
    (saved / "5").rename(saved / "4")
    with pytest.raises(logo_jax.InputError, match=r"changed since .* \(from step 4"):
        logo_jax.pretrain(**call, **fields)


@pytest.mark.slow
def test_from_takes_the_whole_state_with_a_schedule_of_its_own(run, arrays, tmp_path):
    """Only the step and the counts of the learning rate's schedule begin at 0."""
    fields = BASELINE | {"data.path": str(arrays), "train.num_steps": 6}
    config = load(CONFIG, fields | {"train.start_from": str(run.workdir)})
    state = first_state(make_spec(config.to_dict(), num_devices=1))
    old = restored(run.workdir)
    is_count = lambda x: isinstance(x, optax.ScaleByScheduleState)  # noqa: E731
    pairs = zip(
        jax.tree.leaves_with_path(old, is_leaf=is_count),
        jax.tree.leaves(state, is_leaf=is_count),
        strict=True,
    )
    counts = []
    for (path, before), after in pairs:
        name = jax.tree_util.keystr(path)
        if is_count(before) or name == ".step":
            counts += [(int(jax.tree.leaves(x)[0])) for x in (before, after)]
        else:
            np.testing.assert_array_equal(before, after, err_msg=name)
    assert counts == [4, 0] * (len(counts) // 2)
    assert len(counts) >= 4
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [f"--config={CONFIG}", f"--workdir={tmp_path / 'more'}", *flags]
    main.main([*command, f"--from={run.workdir}", "--quiet"])
    more = logo_jax.Run(tmp_path / "more")
    assert more.config["train"]["start_record"].startswith("step 4, ")
    assert [row["step"] for row in more.metrics if "loss" in row] == [1, 2, 3, 4, 5, 6]


WRONG = [
    ({"encoder.weights": "nowhere"}, "encoder.weights='nowhere' does not exist"),
    ({"train.start_from": "nowhere"}, "train.start_from='nowhere' does not exist"),
    ({"train.start_from": "{file}"}, "so it is not the folder of a run"),
    (
        {"encoder.weights": "{file}", "train.start_from": "{file}"},
        "exclude each other; remove one",
    ),
    (
        {"encoder.weights": "{file}", "encoder.width": 8},
        r"does not fit .* batch_stats/bn1/mean has shape \(4,\) in .* and \(8,\) in",
    ),
    (
        {"encoder.weights": "{file}", "encoder.backbone": "resnet18"},
        r"layer1_1/bn1/mean has shape no such tensor in the weights and \(4,\)",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_weights_that_do_not_fit_are_named_and_nothing_is_written(
    changes, message, file, arrays, tmp_path
):
    changes = {k: str(v).format(file=file) for k, v in changes.items()}
    fields = RESNET | {"data.path": str(arrays)} | changes
    del fields["crops.local_crops"]
    with pytest.raises(logo_jax.InputError, match=message):
        logo_jax.pretrain(config=CONFIG, workdir=tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


def test_the_weights_of_another_run_must_be_of_the_same_network(run, arrays, tmp_path):
    fields = BASELINE | {"data.path": str(arrays), "encoder.head_hidden": 4}
    fields |= {"train.start_from": str(run.workdir)}
    with pytest.raises(logo_jax.InputError, match="encoder/head"):
        logo_jax.pretrain(config=CONFIG, workdir=tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()
