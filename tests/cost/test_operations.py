"""Operations and memory accesses of a step, before XLA's optimizations."""

import functools
import importlib

import jax
import jax.numpy as jnp
import pytest

from logo_jax.experiment import make_spec
from logo_jax.methods.base import Batch
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training.train_step import make_train_step

BATCH, SIDE = 16, 32
FIELDS = {
    "data.batch_size": BATCH,
    "batch_norm": "per_device",
    "encoder.backbone": "resnet10",
    "encoder.width": 32,
    "encoder.head_hidden": 64,
    "encoder.embedding_dim": 32,
}
STEPS = {  # config, its variant, fields
    "moco": ("cifar10_moco", "baseline", {}),
    "moco_released": ("cifar10_moco", "logo", {"logo.update_kind": "released"}),
    "moco_joint": ("cifar10_moco", "logo", {"logo.update_kind": "joint"}),
    "simsiam": ("cifar10_simsiam", "baseline", {}),
    "simsiam_joint": ("cifar10_simsiam", "logo", {"logo.update_kind": "joint"}),
}
# A pass through the encoder counts once, and twice more for its gradient.
PASSES = {
    "moco": 1 * 3 + 1,  # a query, a key
    "moco_released": 4 * 3 + 2 + 2 * 3,  # four queries, two keys; two local crops
    "moco_joint": 4 * 3 + 2,
    "simsiam": 2 * 3,
    "simsiam_joint": 4 * 3,
}
# GFLOP, and GB that the operations read and write; equal in jax 0.10.2 and 0.12.0. If a
# change alters them on purpose, record the new values.
RECORDED = {
    "moco": (7.313, 1.801),
    "moco_released": (36.517, 8.262),
    "moco_joint": (25.574, 5.834),
    "simsiam": (10.947, 2.415),
    "simsiam_joint": (21.919, 4.897),
}


@functools.cache
def cost(name: str) -> dict[str, float]:
    """Returns XLA's cost of a step on given crops; the body of a loop counts once."""
    module, variant, fields = STEPS[name]
    config = importlib.import_module(f"logo_jax.configs.{module}").get_config(variant)
    if module == "cifar10_moco":
        fields = fields | {"method.shuffle": False, "method.queue_size": 64}
    config.update_from_flattened_dict(FIELDS | fields)
    spec = make_spec(config, num_devices=1)
    train_step = make_train_step(
        spec.method.update,
        lambda key, examples, epoch: examples,
        make_mesh(jax.devices()[:1]),
        spec.keys("crops", "steps"),
    )
    crops = jax.ShapeDtypeStruct((BATCH, 2, SIDE, SIDE, 3), jnp.float32)
    none = jax.ShapeDtypeStruct((BATCH, 0, SIDE, SIDE, 3), jnp.float32)
    batch = Batch(crops, none if variant == "baseline" else crops)
    state = jax.eval_shape(spec.init)
    return train_step.trace(state, batch, jnp.int32(0)).lower().cost_analysis()


@pytest.mark.parametrize("name", PASSES)
def test_a_step_costs_its_passes_through_the_encoder(name):
    base = "moco" if name.startswith("moco") else "simsiam"
    ratio = cost(name)["flops"] / cost(base)["flops"]
    assert ratio == pytest.approx(PASSES[name] / PASSES[base], rel=0.01)


@pytest.mark.parametrize("name", RECORDED)
def test_a_step_costs_what_it_did_when_last_recorded(name):
    flops, touched = RECORDED[name]
    assert cost(name)["flops"] / 1e9 == pytest.approx(flops, rel=0.01)
    assert cost(name)["bytes accessed"] / 1e9 == pytest.approx(touched, rel=0.03)
