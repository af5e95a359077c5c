"""A step that does not fit is refused before anything is written, with what fits."""

import re

import jax
import pytest

import logo_jax
from logo_jax.configs import load
from logo_jax.experiment import Experiment, data, make_experiment, make_spec, memory
from logo_jax.parallel.mesh import make_mesh
from tests.commands.test_main import SPEED, TINY, fixture_arrays

__all__ = ["fixture_arrays"]

CONFIG = "cifar10_simsiam:baseline"
FIELDS = {k: x for k, x in TINY.items() if k != "crops.local_crops"} | {
    "data.batch_size": 16,
    "crops.global_crops": (2, 32, (0.4, 1.0)),
    "augment.jitter_prob": 0.0,
    "augment.grayscale_prob": 0.0,
    "monitor.knn_every_steps": 0,
}


def limited(monkeypatch, num_bytes):
    monkeypatch.setattr(memory, "usable_memory", lambda mesh: (num_bytes, "a device's"))


def experiment(arrays, **changes):
    config = load(CONFIG, FIELDS | {"data.path": str(arrays)} | changes)
    return make_experiment(config.to_dict(), make_mesh(jax.devices()[:1]))


@pytest.mark.slow
def test_a_step_that_surely_fits_is_not_compiled_and_the_bound_is_one(
    arrays, monkeypatch
):
    made = experiment(arrays)
    limited(monkeypatch, 2.0**40)
    assert memory.fitted(made) is made
    limited(monkeypatch, 2.0**24)
    compiled = memory.fitted(made)
    assert compiled is not made
    ((examples, epoch),) = made.loader.batches(0, 1)
    traced = made.train_step.trace(made.init(), examples, epoch)
    bound = memory._largest(traced.jaxpr.jaxpr)
    used = compiled.train_step.compiled.memory_analysis()
    assert bound >= used.temp_size_in_bytes > 2**18


@pytest.mark.slow
def test_the_proposed_settings_fit(arrays, monkeypatch):
    made = experiment(arrays)
    limited(monkeypatch, 2.0**24)
    needed = memory.step_bytes(memory.fitted(made).train_step.compiled)
    limited(monkeypatch, 0.7 * needed)
    with pytest.raises(ValueError, match="a training step needs") as refused:
        memory.fitted(made)
    found = str(refused.value)
    size = int(re.search(r"or config.data.batch_size=(\d+)", found)[1])
    assert 7 <= size < 12  # 0.9 x 0.7 x 16 images, as far as memory is linear
    memory.fitted(experiment(arrays, **{"data.batch_size": size}))
    parts = int(re.search(r"use config.train.accumulate=(\d+)", found)[1])
    assert parts in (4, 8)  # the crops and the optimizer are not divided
    memory.fitted(experiment(arrays, **{"train.accumulate": parts}))
    assert "remat" not in found  # this network cannot recompute


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_refused_and_writes_nothing(
    arrays, tmp_path, monkeypatch
):
    limited(monkeypatch, 1.0)
    monkeypatch.setattr(memory, "_settings_that_fit", lambda *arguments: iter(()))
    fields = FIELDS | {"data.path": str(arrays)}
    with pytest.raises(logo_jax.InputError, match="use smaller crops or a smaller"):
        logo_jax.pretrain(config=CONFIG, workdir=tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("limit", "queue", "expected"),
    [
        (
            70,
            240,
            [
                "accumulate=2 (62 GiB)",
                "batch_size=24 (62 GiB)",
                "remat=True (50 GiB)",
            ],
        ),
        (
            50,
            240,
            [
                "accumulate=4 (32 GiB)",
                "batch_size=16 (42 GiB)",
                "remat=True with config.data.batch_size=40 (42 GiB)",
            ],
        ),
        (
            50,
            96,  # no whole number of batches of 40
            [
                "accumulate=4 (32 GiB)",
                "batch_size=16 (42 GiB)",
                "remat=True with config.data.batch_size=32 (34 GiB)",
            ],
        ),
        (22, 240, ["remat=True with config.data.batch_size=16 (18 GiB)"]),
        (3, 240, []),
    ],
)
def test_settings_are_the_largest_that_fit(limit, queue, expected, monkeypatch):
    """With a memory of 2 GiB and 2.5 GiB an image, or 1 GiB an image with remat.

    The batch has 48 images, and the queue of MoCo holds whole batches.
    """

    def needed(trial, batch_size, parts):
        return (2 + batch_size / parts * (1 if trial.remat else 2.5)) * 2**30

    monkeypatch.setattr(memory._Trial, "_compile", needed)
    fields = {"data.batch_size": 48, "batch_norm": "split:4"}
    fields |= {"method.queue_size": queue}
    spec = make_spec(load("quickstart:baseline", fields).to_dict(), num_devices=2)
    mesh = make_mesh(jax.devices()[:2])
    made = Experiment(spec, mesh, None, "", None, None, None)  # what is looked at
    whole = needed(memory._Trial(made, False), 48, 1)
    found = list(memory._settings_that_fit(made, limit * 2**30, whole))
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert part in text


@pytest.mark.slow
def test_a_compiled_step_gives_the_same_numbers(arrays, tmp_path, monkeypatch):
    fields = FIELDS | {"data.path": str(arrays), "batch_norm": "global"}
    rows = []
    for name, limit in (("traced", 2.0**40), ("compiled", 2.0**24)):
        limited(monkeypatch, limit)
        run = logo_jax.pretrain(
            config=CONFIG, workdir=tmp_path / name, quiet=True, **fields
        )
        rows.append(
            [{k: x for k, x in r.items() if k not in SPEED} for r in run.metrics]
        )
    assert rows[0] == rows[1] != []


def test_the_limit_of_a_container_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CGROUP_LIMITS", ("/no/file", tmp_path / "limit"))
    physical = data._host_memory()
    mesh = make_mesh(jax.devices()[:2])
    for text, expected in (("max\n", physical), (f"{2**30}\n", 2**30)):
        (tmp_path / "limit").write_text(text)
        assert data.device_memory(mesh) == expected / 2
    assert data.usable_memory(mesh) == (0.45 * 2**30, "its share of the host's free")


def test_memory_that_other_processes_use_is_not_usable(monkeypatch):
    mesh = make_mesh(jax.devices()[:1])
    left = data._left_by_others()
    assert 2**27 < left < data._host_memory()
    monkeypatch.setattr(data, "_left_by_others", lambda: 10.0)
    assert data.usable_memory(mesh)[0] == 9.0
