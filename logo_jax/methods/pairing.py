"""Pairings of views as matrices of weights, and encoding over views.

A view is an augmented crop; views are numbered with the global ones first. A pairing is
a matrix: row s is a view that predicts (MoCo: a query), column t a view that is the
target (a key), the entry the weight of that directed pair's loss. Weights sum to one,
so that the learning rate means the same for every pairing; the paper's own sum,
`summed`, is the exception.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from logo_jax.methods.base import Batch, Metrics

PAIRINGS = ("one_way", "symmetric", "global_targets", "all_pairs", "summed")


def pair_weights(pairing: str, num_global: int, num_local: int) -> np.ndarray:
    """Weights [g + l, targets] of every directed pair of views.

    Args:
        pairing: `one_way`: view 0 predicts view 1 (MoCo v1 and v2); `symmetric`: global
            views predict each other (SimSiam); `global_targets`: every view predicts
            every other global view (LoGo; SwAV's and DINO's multi-crop); `all_pairs`:
            every view predicts every other view (the supplement's "SwAV-style");
            `summed`: `global_targets` as Eqs. 3 and 4 have it, a mean over global
            pairs plus the sum over all pairs of a local crop with a global one.
        num_global: global views of an image, >= 2.
        num_local: local views of an image.

    Returns:
        Targets are the global views, or all views for `all_pairs`. Weights sum to one,
        but for `summed`, which has one for the global pairs and one for each pair with
        a local crop.

    Raises:
        ValueError: for an unknown pairing or too few global views.

    Source: LoGo, Eqs. 3 and 4, and supplement section 2.

    >>> print(pair_weights("one_way", 2, 0))
    [[0. 1.]
     [0. 0.]]
    """
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing={pairing!r} must be one of {', '.join(PAIRINGS)}")
    if num_global < 2:
        raise ValueError(f"{num_global} global crops make no pair; use 2 or more")
    num_views = num_global + num_local
    weights = 1.0 - np.eye(num_views, num_views)
    if pairing != "all_pairs":
        weights = weights[:, :num_global]
    if pairing == "one_way":
        weights[:, 0] = weights[1:] = weights[:, 2:] = 0.0
    if pairing == "symmetric":
        weights[num_global:] = 0.0
    if pairing == "summed":
        weights[:num_global] /= weights[:num_global].sum()
        return weights
    return weights / weights.sum()


def predicting(weights: np.ndarray) -> list[int]:
    """Views that predict at least one target, in order."""
    return np.flatnonzero(weights.any(axis=1)).tolist()


def targeted(weights: np.ndarray) -> list[int]:
    """Views that are the target of at least one other, in order."""
    return np.flatnonzero(weights.any(axis=0)).tolist()


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
    parts = predicting(weights), targeted(weights)
    used = sorted({*parts[0], *parts[1]})
    embeddings, stats, features = encode_crops(
        module, params, batch_stats, batch, used, stats_from_globals=stats_from_globals
    )
    sources, targets = (embeddings[np.isin(used, part)] for part in parts)
    return sources, targets, stats, features


def used_weights(weights: Float[np.ndarray, "s t"]) -> Float[np.ndarray, "r c"]:
    """The rows of views that predict and the columns of targets, of a pairing."""
    return weights[np.ix_(predicting(weights), targeted(weights))]


def pair_metrics(
    weights: Float[np.ndarray, "s t"], losses: Float[Array, "s t"], num_global: int
) -> Metrics:
    """Mean loss of the weighted global-global pairs and of the local-global ones."""
    used = weights > 0
    is_local = np.arange(weights.shape[0]) >= num_global
    to_global = np.arange(weights.shape[1]) < num_global
    kinds = {
        "loss_global_global": used & ~is_local[:, None] & to_global,
        "loss_local_global": used & is_local[:, None] & to_global,
    }
    return {name: losses[pairs].mean() for name, pairs in kinds.items() if pairs.any()}
