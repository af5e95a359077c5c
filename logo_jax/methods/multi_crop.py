"""Encodes the views of a batch, which may have several sizes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from logo_jax.methods.base import Batch
from logo_jax.methods.pairing import predicting_views, target_views
from logo_jax.methods.parts import join_rows, mean_of_parts, num_parts, split_rows


class Encoded(NamedTuple):
    """Views after a network's forward pass in training mode.

    Attributes:
        embeddings: the network's output for each view, [v, b, d].
        batch_stats: the network's new running statistics; empty if it has none.
        features: intermediate "features" that the network sows for the first view, [b,
            f]; None if it does not sow them.
    """

    embeddings: jax.Array
    batch_stats: Any
    features: jax.Array | None


def encode(
    network: Any,
    variables: dict[str, Any],
    views: Sequence[jax.Array],
    *,
    num_updating_stats: int | None = None,
) -> Encoded:
    """Applies a network to views in training mode.

    Consecutive views of one shape pass through the network in one call. They are
    stacked on a leading axis, for which batch norm has separate statistics, so the
    result equals that of encoding one view after another.

    A network with an attribute `parts` above 1 encodes that many equal parts of the
    images one after another. For the gradient each part is encoded again, so that the
    activations of one part at a time are in memory. Running statistics move by the mean
    over the parts, as with groups of a batch norm.

    Args:
        network: called as `network.apply(variables, x, train=True)`.
        variables: its "params" and "batch_stats".
        views: arrays [b, ...], at least one.
        num_updating_stats: number of views, counted from the first, that update the
            running statistics; None: all.
    """
    chex.assert_equal_shape_prefix(views, 1)
    if num_updating_stats is None:
        num_updating_stats = len(views)
    stats = variables["batch_stats"]
    embeddings: list[jax.Array] = []
    features = None
    start = 0
    while start < len(views):
        stop = start + 1
        while (
            stop < len(views)
            and stop != num_updating_stats
            and views[stop].shape == views[start].shape
        ):
            stop += 1
        encoded = _encode_stack(
            network, variables | {"batch_stats": stats}, jnp.stack(views[start:stop])
        )
        if not start:
            features = encoded.features
        if start < num_updating_stats:
            stats = encoded.batch_stats
        embeddings.append(encoded.embeddings)
        start = stop
    return Encoded(jnp.concatenate(embeddings), stats, features)


def _encode_stack(network: Any, variables: dict[str, Any], views: jax.Array) -> Encoded:
    """Encodes views of one shape [v, b, ...], part after part if there are several."""

    def apply(views: jax.Array) -> Encoded:
        output, updated = network.apply(
            variables, views, train=True, mutable=["batch_stats", "intermediates"]
        )
        stats = updated.get("batch_stats", variables["batch_stats"])
        sown = updated.get("intermediates", {})
        features = sown["features"][0][0] if "features" in sown else None
        return Encoded(output, stats, features)

    parts = num_parts(network)
    if parts == 1:
        return apply(views)
    # Inside a loop, XLA cannot merge the second encoding of a part with the first.
    apply_again = jax.checkpoint(apply, prevent_cse=False)
    encoded = jax.lax.map(apply_again, split_rows(views, parts, axis=1))
    return Encoded(
        join_rows(encoded.embeddings, axis=1),
        mean_of_parts(encoded.batch_stats),
        join_rows(encoded.features, axis=0),
    )


def split_views(batch: Batch) -> list[jax.Array]:
    """Returns the views of a batch, each [b, h, w, c], global views first."""
    return [
        crops[:, i]
        for crops in (batch.global_crops, batch.local_crops)
        for i in range(crops.shape[1])
    ]


def encode_views(
    encoder: Any,
    variables: dict[str, Any],
    batch: Batch,
    chosen: Sequence[int],
    running_stats: str = "all",
) -> Encoded:
    """Encodes some of the views of a batch.

    Args:
        encoder: network from images to embeddings.
        variables: its "params" and "batch_stats".
        batch: this device's rows.
        chosen: indices of the views, increasing, at least one.
        running_stats: "all": every view updates the running statistics; "globals":
            local crops do not.
    """
    views, num_global = split_views(batch), batch.global_crops.shape[1]
    num_globals_chosen = sum(i < num_global for i in chosen)
    updating = num_globals_chosen if running_stats == "globals" else None
    chosen_views = [views[i] for i in chosen]
    return encode(encoder, variables, chosen_views, num_updating_stats=updating)


def encode_pairs(
    encoder: Any,
    variables: dict[str, Any],
    batch: Batch,
    weights: np.ndarray,
    running_stats: str = "all",
) -> tuple[Encoded, jax.Array]:
    """Encodes each view of a pairing once.

    Args:
        encoder: network from images to embeddings.
        variables: the network's "params" and "batch_stats".
        batch: this device's rows.
        weights: weight of each directed pair (predicting view, target view), [s, t];
            views without a nonzero weight are not encoded.
        running_stats: "all": every view updates the running statistics; "globals":
            local crops do not.

    Returns:
        `Encoded` with the embeddings [s, b, d] of the predicting views only, and the
        embeddings [t, b, d] of the target views.
    """
    predicting, targets = predicting_views(weights), target_views(weights)
    used = sorted({*predicting, *targets})
    encoded = encode_views(encoder, variables, batch, used, running_stats)
    sources = encoded.embeddings[np.isin(used, predicting)]
    return encoded._replace(embeddings=sources), encoded.embeddings[
        np.isin(used, targets)
    ]
