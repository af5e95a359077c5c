"""The average of a run's encoder, and the choice of a checkpoint by `evaluate`."""

import jax
import numpy as np
import pytest

import logo_jax
from logo_jax import report
from logo_jax.experiment import make_spec, pretrained
from logo_jax.methods.base import EMA_ENCODER, ENCODER, TARGET_ENCODER
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import fixture_arrays, records, tiny_config
from tests.commands.test_main_interrupted import run_main
from tests.run_commands import evaluated

__all__ = ["fixture_arrays"]

TOP1 = "knn/k3_t0.1/top1"
DECAY = 0.75
CHANGES = {
    "train.ema": DECAY,
    "train.num_steps": 3,
    "train.keep_newest": 3,
    "train.keep_best": f"ema/{TOP1}",
    "train.checkpoint_every_steps": 1,
    "monitor.knn_every_steps": 1,
}


def restored(folder, step):
    """Returns the state of a checkpoint of a run."""
    like = jax.eval_shape(make_spec(workdir.read_config(folder), num_devices=4).init)
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(step, like)


def close(a, b):
    for (path, x), y in zip(
        jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_the_average_is_that_of_the_saved_encoders_and_is_evaluated(
    arrays, tmp_path, capfd
):
    folder = tmp_path / "run"
    config = tiny_config("cifar10_byol", "logo", arrays, **CHANGES)
    assert run_main(config, folder) == 0
    assert f"the best ema/{TOP1} is" in capfd.readouterr().err
    states = [restored(folder, step) for step in (1, 2, 3)]
    average = states[0].variables(EMA_ENCODER)
    for state in states[1:]:
        average = jax.tree.map(
            lambda old, new: DECAY * old + (1 - DECAY) * new,
            average,
            state.variables(ENCODER),
        )
    close(states[-1].variables(EMA_ENCODER), average)

    (row,) = (x for x in records(folder) if x["step"] == 3 and TOP1 in x)
    found = evaluated(folder, "--encoder=ema", "--step=3")
    assert found["values"][TOP1] == row[f"ema/{TOP1}"]
    assert found["which_encoder"] == "ema"
    assert found["encoder"] == "step 3, ema"
    found = evaluated(folder, "--encoder=target")
    assert found["which_encoder"] == "target"
    found = evaluated(folder, "--step=2")
    assert (found["which_encoder"], found["encoder"]) == ("online", "step 2")

    config = workdir.read_config(folder)
    one = make_mesh(jax.devices()[:1])
    for name, network in (("ema", EMA_ENCODER), ("target", TARGET_ENCODER)):
        frozen = pretrained.from_run(folder, config, one, encoder=name)
        close(frozen.state.variables(ENCODER), states[-1].variables(network))
        loaded = logo_jax.load_encoder(folder, encoder=name)
        close(loaded.variables["params"], frozen.backbone.variables["params"])

    accuracies = {x["step"]: x[f"ema/{TOP1}"] for x in records(folder) if TOP1 in x}
    best = max(accuracies, key=accuracies.__getitem__)
    report.main([str(folder), "--no_images"])
    page = (folder / "report" / "index.html").read_text()
    assert f"step {best}: {accuracies[best]:.2f} % (ema/{TOP1})" in page


@pytest.mark.slow
def test_a_run_gets_an_average_when_it_is_resumed_and_learns_the_same(
    arrays, tmp_path, capfd
):
    changes = CHANGES | {"train.ema": 0.0, "train.keep_best": TOP1}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    assert run_main(config, tmp_path / "without") == 0
    without = restored(tmp_path / "without", 3)
    assert EMA_ENCODER not in without.memory
    folder = tmp_path / "later"
    (tmp_path / "without").rename(folder)
    for step in (2, 3):
        remove(folder / "checkpoints" / str(step))
    config.train.ema = DECAY
    assert run_main(config, folder) == 0
    assert "learns: train.ema: 0.0 -> 0.75" in capfd.readouterr().err
    state = restored(folder, 3)
    jax.tree.map(np.testing.assert_array_equal, state.params, without.params)
    first, second = restored_online(folder, 1), restored(folder, 2)
    expected = jax.tree.map(
        lambda old, new: DECAY * old + (1 - DECAY) * new,
        first,
        second.params[ENCODER],
    )
    close(second.memory[EMA_ENCODER], expected)
    with pytest.raises(ValueError, match="does not match this run: .*ema_encoder"):
        logo_jax.load_encoder(folder, step=1, encoder="ema")


def restored_online(folder, step):
    frozen = pretrained.from_run(
        folder, workdir.read_config(folder), make_mesh(jax.devices()[:1]), step=step
    )
    return frozen.state.params[ENCODER]


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("metric", "seeds", "fragment"),
    [
        ("knn/k20_t0.07/top1", 1, f"must be a metric of the evaluations: {TOP1}, knn"),
        (f"ema/{TOP1}", 1, "must be a metric of the evaluations"),
        ("loss", 1, "must be a metric of the evaluations"),
        (f"{TOP1}/seed_0", 1, "must be a metric of the evaluations"),
        (f"{TOP1}/seed_2", 2, "or one of these with /seed_I for a seed"),
    ],
)
def test_a_metric_that_is_not_measured_is_refused_before_a_file_is_written(
    metric, seeds, fragment, arrays, tmp_path, capfd
):
    changes = {"train.keep_best": metric, "seeds": seeds}
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    assert run_main(config, tmp_path / "run") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: config.train.keep_best='{metric}' ")
    assert fragment in line
    assert not (tmp_path / "run").exists()
