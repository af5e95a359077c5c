"""Steps of the tiny methods as programs, which are compiled and never run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from logo_jax.methods.base import Method, TrainState
from logo_jax.parallel.mesh import batch_sharding
from logo_jax.parallel.programs import Collective, collectives
from tests.contracts import cases


def state_of(name: str) -> TrainState:
    """Returns the shapes of a method's state."""
    method = cases.METHODS[name](norms=cases.PER_DEVICE)
    return jax.eval_shape(method.init, jax.random.key(1), cases.batch())


@functools.cache
def exchanges(
    name: str, num_devices: int, norms: cases.Norms = cases.PER_DEVICE
) -> list[Collective]:
    """Returns the collectives of a method's step on `cases.BATCH` images in total."""
    method = cases.METHODS[name](norms=norms)
    return collectives(lowered(method, num_devices).compile().as_text())


def lowered(method: Method, num_devices: int) -> jax.stages.Lowered:
    """Returns the lowered step of a method on `cases.BATCH` images in total."""
    trainer = cases.Trainer(method, num_devices)
    state = jax.eval_shape(method.init, jax.random.key(1), cases.batch())
    traced = trainer.compiled.trace(
        _on(NamedSharding(trainer.mesh, P()), state),
        _on(batch_sharding(trainer.mesh), jax.eval_shape(cases.batch)),
        jnp.int32(0),
    )
    return traced.lower()


def num_bytes(tree: Any) -> int:
    """Returns the bytes of all leaves."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _on(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )
