"""Exchanges between devices, inside `shard_map` over the mesh's one axis."""

from typing import Any

import jax
import jax.numpy as jnp

from logo_jax.parallel.mesh import AXIS


def varying(params: Any) -> Any:
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


def per_device_key(key: jax.Array) -> jax.Array:
    """A random key that no other device has, from one that all have."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def all_to_all(x: jax.Array, *, back: bool = False) -> jax.Array:
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
