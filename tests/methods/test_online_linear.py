"""The online classifier learns, and does not change the training of the network."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.data.loader import Examples
from logo_jax.experiment import make_spec
from logo_jax.experiment.experiment import compiled_step
from logo_jax.methods import LoGo, OnlineLinear
from logo_jax.methods.base import LINEAR
from logo_jax.parallel.mesh import batch_sharding, make_mesh
from logo_jax.training import optim
from tests.contracts import cases

RATE, CLASSES = 0.5, 3


def with_linear(method):
    def wrap(base):
        tx = optim.sgd(RATE, momentum=0.9, weight_decay=0.0)
        return OnlineLinear(base, CLASSES, tx)

    if isinstance(method, LoGo):
        return dataclasses.replace(method, base=wrap(method.base))
    return wrap(method)


def trained(trainer, labels, steps=3):
    state, metrics = trainer.init(), {}
    for i in range(steps):
        batch = cases.batch(i)._replace(labels=jnp.asarray(labels, jnp.int32))
        batch = jax.device_put(batch, batch_sharding(trainer.mesh))
        state, metrics = trainer.compiled(state, batch, jnp.int32(0))
    assert trainer.traces == 1
    return jax.device_get((state, metrics))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moco", "byol", "logo_simsiam", "logo_swav_joint"])
def test_the_network_trains_as_without_the_classifier(name):
    """Equal up to rounding: the compiler may fuse the two programs differently."""
    plain_trainer = cases.one_device(name)
    without, plain = jax.device_get(plain_trainer.run(plain_trainer.init(), 3))
    labels = np.arange(cases.BATCH) % CLASSES
    found, metrics = trained(cases.Trainer(with_linear(plain_trainer.method)), labels)
    assert np.abs(found.params[LINEAR]["kernel"]).max() > 0
    assert metrics.keys() - plain.keys() == {"linear/loss", "linear/top1"}
    found.params.pop(LINEAR)
    found.opt_states.pop(LINEAR)
    assert jax.tree.structure(found) == jax.tree.structure(without)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(without), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for key, value in plain.items():
        np.testing.assert_allclose(metrics[key], value, rtol=1e-5, atol=1e-7)


@functools.cache
def simsiam_on(num_devices):
    return cases.Trainer(with_linear(cases.simsiam()), num_devices)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 4])
def test_images_without_a_label_are_ignored_on_any_device(num_devices):
    labels = [
        2,
        0,
        0,
        -1,
        1,
        -1,
        -1,
        -1,
    ]  # with two images per device, one device has no labels
    state, metrics = trained(simsiam_on(num_devices), labels, steps=1)
    moved = RATE * (
        np.array([2, 1, 1]) / 4 - 1 / 3
    )  # from equal probabilities to the labels
    np.testing.assert_allclose(state.params[LINEAR]["bias"], moved, atol=1e-6)
    np.testing.assert_allclose(metrics["linear/loss"], np.log(3), rtol=1e-6)
    np.testing.assert_allclose(metrics["linear/top1"], 50)  # zero scores: class 0


def test_a_batch_without_labels_changes_nothing():
    state, metrics = trained(simsiam_on(1), [-1] * 8, steps=1)
    assert not np.any(state.params[LINEAR]["kernel"])
    assert metrics["linear/top1"] == metrics["linear/loss"] == 0


@pytest.mark.slow
def test_it_learns_classes_that_the_features_separate():
    method = with_linear(cases.simsiam(norms=cases.PER_DEVICE))
    method = dataclasses.replace(
        method,
        base=dataclasses.replace(
            method.base, tx=optim.sgd(0.0, momentum=0.0, weight_decay=0.0)
        ),
        tx=optim.sgd(20.0, momentum=0.9, weight_decay=0.0),
    )
    trainer = cases.Trainer(method)
    state, metrics = trainer.init(), {}
    dark = jnp.arange(cases.BATCH) % 2
    scale = jnp.where(dark == 1, 0.1, 3.0)[:, None, None, None, None]
    for i in range(40):
        batch = cases.batch(i)
        batch = batch._replace(
            global_crops=jnp.abs(batch.global_crops) + scale, labels=dark
        )
        state, metrics = trainer.compiled(state, batch, jnp.int32(0))
    assert metrics["linear/top1"] == 100


def flops(num_classes):
    config = importlib.import_module("logo_jax.configs.quickstart").get_config(
        "baseline"
    )
    config.monitor.linear = True
    spec = make_spec(config, num_devices=1, num_classes=num_classes)
    b = spec.config.data.batch_size
    shapes = {"images": (b, 16, 16, 3), "sizes": (b, 2), "ids": (b,), "labels": (b,)}
    examples = Examples(
        **{
            name: jax.ShapeDtypeStruct(shape, np.uint8 if len(shape) > 2 else np.int32)
            for name, shape in shapes.items()
        }
    )
    compiled = compiled_step(spec, make_mesh(jax.devices()[:1]))
    state = jax.eval_shape(spec.init)
    lowered = compiled.trace(state, examples, np.int32(0)).lower()
    return lowered.cost_analysis()["flops"]


@pytest.mark.slow
def test_it_costs_under_two_percent_of_a_step():
    without, found = flops(0), flops(10)
    assert without < found < 1.02 * without
