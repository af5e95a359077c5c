"""Shuffled batch norm: keys meet other images in their batch norm than queries do."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from logo_jax.step import gather, global_size, local_rows


def shuffled(
    encode: Callable[[Sequence[jax.Array]], tuple[jax.Array, Any]],
    views: Sequence[jax.Array],
    key: jax.Array,
) -> tuple[jax.Array, Any]:
    """What encode makes of views whose images changed places over all devices.

    Without it a query and its key share their batch's statistics, which give the pair
    away to the loss.

    Args:
        encode: from views, each [b, ...], to embeddings [v, b, d] and anything else.
        views: this device's.
        key: the same on all devices.

    Returns:
        Embeddings of the images in their own places, and encode's second value.

    Source: He et al. 2020, section 3.3; facebookresearch/moco@moco/builder.py.
    """
    batch = global_size(views[0].shape[0])
    order = jax.random.permutation(key, batch)
    mine, home = local_rows(order), local_rows(jnp.argsort(order))
    embeddings, extra = encode([gather(view)[mine] for view in views])
    return gather(embeddings, axis=1)[:, home], extra
