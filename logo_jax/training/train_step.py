"""Devices and gradients: the mesh, the one gradient step, the compiled train step.

The only module that knows the name of the device axis and the only place that averages
gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from logo_jax.methods import diagnostics
from logo_jax.methods.base import (
    Aux,
    Batch,
    Forward,
    LossMethod,
    Metrics,
    Params,
    Term,
    TrainState,
    Update,
    with_forward,
)

AXIS = "data"

LossFn: TypeAlias = Callable[[Params], tuple[jax.Array, Aux]]


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-axis mesh over the devices given, or over all of every process.

    Each process's devices are together and in the processes' order, as `Streamed` deals
    out its rows; the ids of a TPU slice are not.
    """
    chosen = jax.devices() if devices is None else devices
    ordered = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), (AXIS,))


def batch_sharding(mesh: Mesh, several: bool = False) -> NamedSharding:
    """First axis split over the devices of the mesh; the second, for several seeds."""
    return NamedSharding(mesh, _batch_spec(several))


def _batch_spec(several):
    return P(None, AXIS) if several else P(AXIS)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree with one copy of every leaf on each device of the mesh.

    All processes hold the tree, and each serves its own devices.
    """
    return jax.tree.map(lambda x: place(x, NamedSharding(mesh, P())), tree)


def place(x: Any, sharding: NamedSharding) -> jax.Array:
    """An array that all processes hold, on the devices of a sharding.

    `jax.device_put` would first send it round, to see that all hold the same.
    """
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)


def per_device(params: Any) -> Any:
    """Params marked as each device's own copy, so that gradients stay local.

    Without it `jax.grad` inside `shard_map` returns gradients already summed over
    devices, and averaging them would leave them too large by their number.
    """
    return jax.lax.pcast(params, AXIS, to="varying")


def global_size(local: int) -> int:
    """Rows on all devices together where each has `local`."""
    return local * jax.lax.axis_size(AXIS)


def gather(x: jax.Array, axis: int = 0) -> jax.Array:
    """All devices' x, end to end along axis, the same on every device."""
    return jax.lax.all_gather(x, AXIS, axis=axis, tiled=True, to="invarying")


def local_rows(x: jax.Array, axis: int = 0) -> jax.Array:
    """This device's share of a value that all devices hold, split along axis."""
    size = x.shape[axis] // global_size(1)
    start = jax.lax.axis_index(AXIS) * size
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def reverse_batch(x: jax.Array, axis: int) -> jax.Array:
    """The global batch in reverse order, this device's share of it."""
    last = global_size(1) - 1
    return jax.lax.ppermute(
        jnp.flip(x, axis), AXIS, [(i, last - i) for i in range(last + 1)]
    )


def roll_batch(x: jax.Array, shift: jax.Array, axis: int) -> jax.Array:
    """The global batch, each row moved up by `shift`; this device's share of it.

    The shift is less than the rows of all devices, and the same on all.
    """
    size, count = x.shape[axis], global_size(1)
    devices, rest = shift // size, shift % size
    # which device sends to which must be known beforehand: by powers of two, or not
    for power in range((count - 1).bit_length()):
        x = jnp.where((devices >> power) & 1, _send(x, 2**power), x)
    both = jnp.concatenate([_send(x, 1), x], axis)
    return jax.lax.dynamic_slice_in_dim(both, size - rest, size, axis)


def _send(x: jax.Array, steps: int) -> jax.Array:
    """What the device so many steps before this one has, round in a ring."""
    count = global_size(1)
    if not steps % count:
        return x
    return jax.lax.ppermute(x, AXIS, [(i, (i + steps) % count) for i in range(count)])


def own_key(key: jax.Array) -> jax.Array:
    """A random key that no other device has, from one that all have."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def deal_out(x: jax.Array, *, back: bool = False) -> jax.Array:
    """As many rows as this device's, a share from each of the devices before it.

    Share s of its own, of equal or nearly equal ones, is with the s-th device after it;
    share 0 has stayed. There are as many as devices, or as rows where these are fewer.

    With `back`, x has been dealt out, and each row goes back to where it was.
    """
    shares = jnp.array_split(x, min(global_size(1), len(x)))
    turn = -1 if back else 1
    return jnp.concatenate([_send(share, turn * s) for s, share in enumerate(shares)])


def as_mean_over_devices(loss: jax.Array) -> jax.Array:
    """A loss of gathered values, whose gradients may be averaged like all others.

    Each device's gradient of such a loss is its own examples' part of the whole: the
    parts add up, and their mean is too small by the number of devices.
    """
    return loss + (global_size(1) - 1) * (loss - jax.lax.stop_gradient(loss))


def apply_gradients(
    state: TrainState,
    grads: dict[str, Any],
    *,
    tx: optax.GradientTransformationExtraArgs,
    slot: str,
    **extra: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Averages grads over devices and moves the parameters they are named after.

    Args:
        state: the train state.
        grads: this device's gradients, by network.
        tx: the optimiser.
        slot: the name of its state in `state.opt_states`.
        **extra: passed to `tx.update`.

    Returns:
        The new state, and the norm of the averaged gradient of each network.
    """
    grads = jax.lax.pmean(grads, AXIS)
    params = {name: state.params[name] for name in grads}
    updates, opt_state = tx.update(grads, state.opt_states[slot], params, **extra)
    state = state.replace(
        params=state.params | jax.tree.map(jnp.add, params, updates),
        opt_states=state.opt_states | {slot: opt_state},
    )
    return state, {name: optax.tree.norm(grad) for name, grad in grads.items()}


def gradient_step(
    state: TrainState,
    loss_fn: LossFn,
    *,
    trains: tuple[str, ...],
    tx: optax.GradientTransformationExtraArgs,
    slot: str,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """Steps params[trains] down the gradient of loss_fn.

    Args:
        state: the train state.
        loss_fn: from this device's copy of params[trains] to the loss, and, as
            auxiliary values, the state its pass leaves and metrics.
        trains: names of the networks to move.
        tx: their optimiser.
        slot: the name of its state.

    Returns:
        The new state, the metrics, the norm of each network's gradient.
    """
    params = per_device({name: state.params[name] for name in trains})
    grads, (state, metrics) = jax.grad(loss_fn, has_aux=True)(params)
    state, grad_norms = apply_gradients(state, grads, tx=tx, slot=slot)
    return state, metrics, grad_norms


def no_term(state: TrainState, forward: Forward) -> tuple[jax.Array, Aux]:
    """The term that adds nothing to a base method's loss."""
    del forward
    return jnp.zeros(()), (state, {})


def base_update(
    method: LossMethod,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    term: Term = no_term,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """One gradient step of a base method on its loss plus a term.

    Args:
        method: the base method.
        state: the train state.
        batch: this device's rows.
        key: the same on all devices.
        term: adds to the loss a value computed from the state and the forward pass;
            the state it returns (with, say, another network's update) is kept.

    Returns:
        The new state, metrics, and the norm of each network's gradient.
    """
    state = method.prepare(state)

    def loss_fn(params):
        loss, forward = method.loss(params, state, batch, key)
        extra, (after, metrics) = term(with_forward(state, forward), forward)
        numbers = health_of(forward.embeddings)
        metrics = {"loss": loss + extra} | numbers | forward.metrics | metrics
        return loss + extra, (after, metrics)

    return gradient_step(
        state, loss_fn, trains=method.trains, tx=method.tx, slot="base"
    )


def health_of(embeddings: jax.Array) -> Metrics:
    """Health of embeddings [s, b, d] of predicting views, from rows of all devices.

    About `health.MOST_ROWS` images at most, evenly spread over each device's: the same
    ones on any number of devices where the stride divides what each of them has.
    """
    stride = -(-global_size(embeddings.shape[1]) // diagnostics.MOST_ROWS)
    rows = jax.lax.stop_gradient(embeddings[:2, ::stride])
    return diagnostics.measure(gather(rows, axis=1))


class TrainStep(NamedTuple):
    """A compiled step `(state, examples, epoch) -> (state, metrics)` of one run.

    The run's keys are an argument of the program, not a part of it, so that runs that
    differ in their seeds alone share one entry of the compile cache.

    Attributes:
        compiled: `(state, examples, epoch, keys)`, as `jax.jit` made it.
        keys: the run's, as numbers, on all devices.
    """

    compiled: Any
    keys: jax.Array

    def __call__(
        self, state: TrainState, examples: Any, epoch: Any
    ) -> tuple[TrainState, Metrics]:
        """One step; donates the state."""
        return self.compiled(state, examples, epoch, self.keys)

    def trace(self, state: Any, examples: Any, epoch: Any) -> Any:
        """As `jax.jit`'s: the program, before it is lowered and compiled."""
        return self.compiled.trace(state, examples, epoch, self.keys)


def make_train_step(
    update: Update,
    make_batch: Callable[..., Batch],
    mesh: Mesh,
    keys: jax.Array,
) -> TrainStep:
    """The compiled step `(state, examples, epoch) -> (state, metrics)` of any method.

    Args:
        update: a method's update.
        make_batch: `(key, examples, epoch)`: turns this device's examples into crops.
        mesh: the devices; examples are split over them as `batch_sharding` says.
        keys: the run's, one for crops and one for steps, [2], the same on all devices;
            or [n, 2] for n seeds at once, which then lead the state, the examples and
            the metrics.

    Returns:
        A function that donates the state, keeps it equal on all devices and averages
        running statistics and metrics over them.
    """

    def train_step(state, examples, epoch, keys):
        crops_key, steps_key = jax.random.wrap_key_data(keys)
        batch = make_batch(crops_key, examples, epoch)
        step_key = jax.random.fold_in(steps_key, state.step)
        state, metrics = update(state, batch, step_key)
        stats, metrics = jax.lax.pmean((state.batch_stats, metrics), AXIS)
        return state.replace(step=state.step + 1, batch_stats=stats), metrics

    several = keys.ndim == 2
    if several:
        train_step = jax.vmap(train_step, in_axes=(0, 0, None, 0))
    in_specs = (P(), _batch_spec(several), P(), P())
    mapped = jax.shard_map(train_step, mesh=mesh, in_specs=in_specs, out_specs=P())
    compiled = jax.jit(mapped, donate_argnums=0)
    return TrainStep(compiled, replicate(jax.random.key_data(keys), mesh))
