"""Shuffled batch norm: keys meet other images in their batch norm than queries do."""

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
    """What encode makes of views whose images changed places, on and over devices.

    Without it a query and its key share their batch's statistics, which give the pair
    away to the loss. Each device deals out its images at random, as equal a share to
    each device as can be; a permutation of the global batch would share them out
    no better, and send all images to all devices.

    Args:
        encode: from views, each [b, ...], to embeddings [v, b, d] and anything else.
        views: this device's.
        key: the same on all devices.

    Returns:
        Embeddings of the images in their own places, and encode's second value.

    Source: He et al. 2020, section 3.3; facebookresearch/moco@moco/builder.py, which
        permutes the global batch.
    """
    order = jax.random.permutation(per_device_key(key), len(views[0]))
    embeddings, extra = encode([all_to_all(view[order]) for view in views])
    rows = all_to_all(jnp.swapaxes(embeddings, 0, 1), back=True)[jnp.argsort(order)]
    return jnp.swapaxes(rows, 0, 1), extra
