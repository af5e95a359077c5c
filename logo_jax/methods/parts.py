"""Parts of a device's images that are computed one after another, to save memory."""

from typing import Any

import jax
import jax.numpy as jnp


def num_parts(network: Any) -> int:
    """Returns the number of parts in which training encodes a device's images."""
    return getattr(network, "parts", 1)


def split_rows(tree: Any, parts: int, axis: int) -> Any:
    """Splits an axis into equal, contiguous parts, which become a new leading axis.

    Args:
        tree: arrays with the images on this axis, [.., b, ..].
        parts: number of parts; divides b.
        axis: the axis of the images.

    Returns:
        The arrays as [parts, .., b / parts, ..].
    """

    def split(x: jax.Array) -> jax.Array:
        rows = x.shape[axis] // parts
        shape = (*x.shape[:axis], parts, rows, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    return jax.tree.map(split, tree)


def join_rows(tree: Any, axis: int) -> Any:
    """Inverts `split_rows`: arrays [parts, .., b / parts, ..] become [.., b, ..]."""

    def join(x: jax.Array) -> jax.Array:
        parts, rows = x.shape[0], x.shape[axis + 1]
        x = jnp.moveaxis(x, 0, axis)
        return x.reshape(*x.shape[:axis], parts * rows, *x.shape[axis + 2 :])

    return jax.tree.map(join, tree)


def mean_of_parts(tree: Any) -> Any:
    """Returns the means over the leading axis, in the dtype of each array."""
    return jax.tree.map(lambda x: x.mean(0).astype(x.dtype), tree)
