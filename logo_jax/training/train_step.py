"""Compiled training step of any method on a mesh of devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from logo_jax.methods.base import Batch, Metrics, TrainState
from logo_jax.parallel.mesh import AXIS, batch_spec


class TrainStep(NamedTuple):
    """Compiled step `(state, examples, epoch) -> (state, metrics)` of one run.

    The random keys of the run are an argument of the compiled program, not constants,
    so that runs with different seeds share one entry of the compilation cache. They are
    in the host's memory, because the step may be compiled for devices that are not
    here.

    Attributes:
        compiled: function of `(state, examples, epoch, keys)`, compiled by `jax.jit`.
        keys: random keys of the run, as raw key data.
    """

    compiled: Any
    keys: np.ndarray

    def __call__(
        self, state: TrainState, examples: Any, epoch: Any
    ) -> tuple[TrainState, Metrics]:
        """Runs one step; donates the state."""
        return self.compiled(state, examples, epoch, self.keys)

    @property
    def is_compiled(self) -> bool:
        """Whether the first call need not compile the step."""
        return isinstance(self.compiled, jax.stages.Compiled)

    def trace(self, state: Any, examples: Any, epoch: Any) -> Any:
        """Returns the traced program, as the `trace` method of a `jax.jit` function."""
        return self.compiled.trace(state, examples, epoch, self.keys)


def make_train_step(
    update: Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]],
    make_batch: Callable[..., Batch],
    mesh: Mesh,
    keys: jax.Array,
) -> TrainStep:
    """Makes the compiled step `(state, examples, epoch) -> (state, metrics)`.

    Args:
        update: update function of a method; must average its gradients over devices.
        make_batch: function of `(key, examples, epoch)` that returns the crops of this
            device's examples.
        mesh: mesh of devices; examples are split over the devices by `batch_sharding`.
        keys: random keys of the run, one for crops and one for steps, [2]; or [n, 2]
            for n seeds, which are the leading axis of state, examples and metrics.

    Returns:
        The step. It donates the state, keeps the state equal on all devices, and
        averages running statistics and metrics over devices.
    """

    def train_step(state, examples, epoch, keys):
        crops_key, steps_key = jax.random.wrap_key_data(keys, impl=kind)
        batch = make_batch(crops_key, examples, epoch)
        step_key = jax.random.fold_in(steps_key, state.step)
        state, metrics = update(state, batch, step_key)
        stats, metrics = jax.lax.pmean((state.batch_stats, metrics), AXIS)
        return state.replace(step=state.step + 1, batch_stats=stats), metrics

    several, kind = keys.ndim == 2, jax.random.key_impl(keys)
    if several:
        train_step = jax.vmap(train_step, in_axes=(0, 0, None, 0))
    in_specs = (P(), batch_spec(several), P(), P())
    mapped = jax.shard_map(train_step, mesh=mesh, in_specs=in_specs, out_specs=P())
    compiled = jax.jit(mapped, donate_argnums=0)
    return TrainStep(compiled, np.asarray(jax.random.key_data(keys)))
