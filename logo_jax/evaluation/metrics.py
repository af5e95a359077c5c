"""Metrics by the names data sets give them; fractions in [0, 1] of class scores."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from logo_jax.evaluation.average_precision import (
    mean_average_precision,
    mean_average_precision_11_point,
)


def top1(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """How many examples score highest in their class; of equals the first counts."""
    return float(np.mean(scores.argmax(1) == labels))


def top5(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """How many examples have their class among the first five, or fewer if there are.

    Of equal scores the earlier class comes first.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float(np.mean((best == labels[:, None]).any(1)))


def mean_per_class(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> float:
    """The mean of the classes' recalls, over the classes that labels have."""
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top1": top1,
    "top5": top5,
    "mean_per_class": mean_per_class,
    "map": mean_average_precision,
    "map_11_point": mean_average_precision_11_point,
}
