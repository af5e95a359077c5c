"""Steps of the tiny methods as programs: traced and compiled, never run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.collectives import Collective, collectives
from logo_jax.methods.base import Method, TrainState
from logo_jax.parallel.mesh import batch_sharding
from tests.contracts import cases


def state_of(name: str) -> TrainState:
    """The shapes of a method's state."""
    method = cases.METHODS[name](axis_name=None)
    return jax.eval_shape(method.init, jax.random.key(1), cases.batch())


@functools.cache
def exchanges(
    name: str, num_devices: int, axis_name: str | None = None
) -> list[Collective]:
    """What a step of the method exchanges, with `cases.BATCH` images in all."""
    method = cases.METHODS[name](axis_name=axis_name)
    return collectives(lowered(method, num_devices).compile().as_text())


def lowered(method: Method, num_devices: int) -> jax.stages.Lowered:
    """A method's step on `cases.BATCH` images in all, traced."""
    trainer = cases.Trainer(method, num_devices)
    state = jax.eval_shape(method.init, jax.random.key(1), cases.batch())
    traced = trainer.compiled.trace(
        _on(NamedSharding(trainer.mesh, P()), state),
        _on(batch_sharding(trainer.mesh), jax.eval_shape(cases.batch)),
        jnp.int32(0),
    )
    return traced.lower()


def num_bytes(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _on(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )
