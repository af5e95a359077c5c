"""Steps of the tiny methods as programs: traced and compiled, never run."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.collectives import Collective, collectives
from logo_jax import step
from logo_jax.state import TrainState
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
    trainer = cases.Trainer(cases.METHODS[name](axis_name=axis_name), num_devices)
    everywhere = NamedSharding(trainer.mesh, P())
    lowered = trainer.compiled.lower(
        _on(everywhere, state_of(name)),
        _on(step.batch_sharding(trainer.mesh), jax.eval_shape(cases.batch)),
        jnp.int32(0),
    )
    return collectives(lowered.compile().as_text())


def num_bytes(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _on(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )
