"""Pairings of views as weight matrices, and the loss over pairs.

A view is an augmented crop. Views are numbered, with the global views first. A pairing
is a matrix: row s is a predicting view (in MoCo, a query), column t is a target view (a
key), and the entry is the weight of the loss of that directed pair. Weights sum to one,
so that the learning rate has the same meaning for every pairing; the exception is
`summed`, the paper's own sum.
"""

import chex
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from logo_jax.methods.base import Metrics

PAIRINGS = ("one_way", "symmetric", "global_targets", "all_pairs", "summed")


def pair_weights(pairing: str, num_global: int, num_local: int) -> np.ndarray:
    """Returns the weights [g + l, targets] of all directed pairs of views.

    Args:
        pairing: `one_way`: view 0 predicts view 1 (MoCo v1 and v2); `symmetric`: global
            views predict each other (SimSiam); `global_targets`: every view predicts
            every other global view (LoGo; multi-crop of SwAV and DINO); `all_pairs`:
            every view predicts every other view (the supplement's "SwAV-style");
            `summed`: `global_targets` with the weights of Eqs. 3 and 4, a mean over
            global pairs plus the sum over all pairs of a local crop with a global one.
        num_global: number of global views of an image, >= 2.
        num_local: number of local views of an image.

    Returns:
        The weights. Targets are the global views, or all views for `all_pairs`. Weights
        sum to one, except for `summed`: its weights of global pairs sum to one, and
        each pair with a local crop has weight one.

    Raises:
        ValueError: if the pairing is unknown or there are too few global views.

    Source: LoGo, Eqs. 3 and 4, and supplement section 2.

    >>> print(pair_weights("one_way", 2, 0))
    [[0. 1.]
     [0. 0.]]
    """
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing={pairing!r} must be one of {', '.join(PAIRINGS)}")
    if num_global < 2:
        raise ValueError(
            f"num_global={num_global} must be 2 or more to form pairs of views"
        )
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


def predicting_views(weights: np.ndarray) -> list[int]:
    """Returns the views that predict at least one target, in order."""
    return np.flatnonzero(weights.any(axis=1)).tolist()


def target_views(weights: np.ndarray) -> list[int]:
    """Returns the views that are the target of at least one other view, in order."""
    return np.flatnonzero(weights.any(axis=0)).tolist()


def used_weights(weights: Float[np.ndarray, "s t"]) -> Float[np.ndarray, "r c"]:
    """Returns the rows of predicting views and the columns of target views."""
    return weights[np.ix_(predicting_views(weights), target_views(weights))]


def pair_loss(
    losses: Float[Array, "s t b"], weights: Float[np.ndarray, "s t"], num_global: int
) -> tuple[Float[Array, ""], Metrics]:
    """Returns the weighted sum over pairs of the mean loss over images, and metrics.

    Args:
        losses: loss of each (predicting view, target view, image).
        weights: weights of the pairs.
        num_global: number of global views of an image; they are the first of both axes.
    """
    chex.assert_shape(losses, (*weights.shape, None))
    losses = losses.mean(-1)
    return jnp.sum(weights * losses), pair_metrics(weights, losses, num_global)


def pair_metrics(
    weights: Float[np.ndarray, "s t"], losses: Float[Array, "s t"], num_global: int
) -> Metrics:
    """Returns the unweighted mean losses of global-global and of local-global pairs."""
    used = weights > 0
    is_local = np.arange(weights.shape[0]) >= num_global
    to_global = np.arange(weights.shape[1]) < num_global
    kinds = {
        "loss_global_global": used & ~is_local[:, None] & to_global,
        "loss_local_global": used & is_local[:, None] & to_global,
    }
    return {name: losses[pairs].mean() for name, pairs in kinds.items() if pairs.any()}
