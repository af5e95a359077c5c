"""Encodes the views of a batch, which may be of several sizes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from logo_jax.methods.base import Batch
from logo_jax.methods.pairing import predicting_views, target_views


def split_views(batch: Batch) -> list[jax.Array]:
    """The views of a batch, each [b, h, w, c], global ones first."""
    return [
        crops[:, i]
        for crops in (batch.global_crops, batch.local_crops)
        for i in range(crops.shape[1])
    ]


def encode_views(
    module: Any,
    params: Any,
    batch_stats: Any,
    views: Sequence[jax.Array],
    *,
    moving: int | None = None,
) -> tuple[jax.Array, Any]:
    """Embeddings [s, b, d] of views in training mode, and the new running statistics.

    Arguments as of `encode_with_features`.
    """
    return encode_with_features(module, params, batch_stats, views, moving=moving)[:2]


def encode_with_features(
    module: Any,
    params: Any,
    batch_stats: Any,
    views: Sequence[jax.Array],
    *,
    moving: int | None = None,
) -> tuple[jax.Array, Any, jax.Array | None]:
    """As `encode_views`; and the features [b, f] of the first view.

    Neighbours of one shape go through the network in one call, as a leading axis that
    its batch norms keep apart: the result is that of encoding view after view.

    Args:
        module: a network called as `module.apply(variables, x, train=True)`.
        params: its parameters.
        batch_stats: its running statistics; may be empty.
        views: arrays [b, ...], at least one.
        moving: how many of them, the first ones, move the running statistics; None:
            all.

    Returns:
        Embeddings; statistics; the "features" that the network sows, or None where it
        sows none.
    """
    moving = len(views) if moving is None else moving
    embeddings: list[jax.Array] = []
    features = None
    start = 0
    while start < len(views):
        stop = start + 1
        while (
            stop < len(views)
            and stop != moving
            and views[stop].shape == views[start].shape
        ):
            stop += 1
        stacked = jnp.stack(views[start:stop])
        output, updated = module.apply(
            {"params": params, "batch_stats": batch_stats},
            stacked,
            train=True,
            mutable=["batch_stats", "intermediates"],
        )
        if not start and "features" in (sown := updated.get("intermediates", {})):
            features = sown["features"][0][0]
        if start < moving:
            batch_stats = updated.get("batch_stats", batch_stats)
        embeddings.append(output)
        start = stop
    return jnp.concatenate(embeddings), batch_stats, features


def encode_crops(
    module: Any,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    chosen: Sequence[int],
    *,
    stats_from_globals: bool = False,
) -> tuple[jax.Array, Any, jax.Array | None]:
    """As `encode_with_features`, of the views of a batch that have the numbers chosen.

    Args:
        module: as there.
        params: as there.
        batch_stats: as there.
        batch: whose views they are.
        chosen: their numbers, rising; at least one.
        stats_from_globals: local crops leave the running statistics alone.
    """
    views, num_global = split_views(batch), batch.global_crops.shape[1]
    moving = sum(i < num_global for i in chosen) if stats_from_globals else None
    chosen_views = [views[i] for i in chosen]
    return encode_with_features(
        module, params, batch_stats, chosen_views, moving=moving
    )


def encode_pairs(
    module: Any,
    params: Any,
    batch_stats: Any,
    batch: Batch,
    weights: Float[np.ndarray, "s t"],
    *,
    stats_from_globals: bool = False,
) -> tuple[jax.Array, jax.Array, Any, jax.Array | None]:
    """As `encode_crops`: each view of a pairing once, then sorted by its part.

    Args:
        module: as there.
        params: as there.
        batch_stats: as there.
        batch: as there.
        weights: of the pairing.
        stats_from_globals: as there.

    Returns:
        Embeddings of the views that predict and of those that are targets, the new
        running statistics, and the features of the first view used.
    """
    parts = predicting_views(weights), target_views(weights)
    used = sorted({*parts[0], *parts[1]})
    embeddings, stats, features = encode_crops(
        module, params, batch_stats, batch, used, stats_from_globals=stats_from_globals
    )
    sources, targets = (embeddings[np.isin(used, part)] for part in parts)
    return sources, targets, stats, features
