"""Shuffled batch norm: keys are normalized in other groups of images than queries."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from logo_jax.parallel.collectives import all_to_all, per_device_key


def encode_shuffled(
    encode: Callable[[Sequence[jax.Array]], tuple[jax.Array, Any]],
    views: Sequence[jax.Array],
    key: jax.Array,
) -> tuple[jax.Array, Any]:
    """Encodes views after a random permutation of their images, on and over devices.

    Otherwise a query and its key share the statistics of a batch, which reveal the pair
    to the loss. Each device splits its images at random, as evenly as possible, over
    all devices. A permutation of the global batch would not distribute them better, and
    would send all images to all devices.

    Args:
        encode: function from views, each [b, ...], to embeddings [v, b, d] and another
            value.
        views: this device's views.
        key: random key, the same on all devices.

    Returns:
        Embeddings of the images in their original places, and encode's second value.

    Source: He et al. 2020, section 3.3; facebookresearch/moco@moco/builder.py, which
        permutes the global batch.
    """
    order = jax.random.permutation(per_device_key(key), len(views[0]))
    embeddings, extra = encode([all_to_all(view[order]) for view in views])
    rows = all_to_all(jnp.swapaxes(embeddings, 0, 1), back=True)[jnp.argsort(order)]
    return jnp.swapaxes(rows, 0, 1), extra
