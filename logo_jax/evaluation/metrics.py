"""Metrics of class scores, in [0, 1], and tables of them by name."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int

Array: TypeAlias = jax.Array | np.ndarray
Metric: TypeAlias = Callable[[np.ndarray, np.ndarray], float]

UNRANKED = 2**31 - 1  # rank if the label is unknown or the scores are not finite


def label_rank(scores: Float[Array, "*s n c"], labels: Int[Array, " n"]) -> Any:
    """Returns the number of classes that are ranked before the label, [*s, n].

    The rank is 0 if the label is the predicted class, and below k if the label is among
    the first k classes. Among classes with equal scores, the class with the smaller
    index is ranked first. The rank is `UNRANKED`, which is above every k, if the label
    is unknown (-1) or if a score of the example is not finite, for example because the
    classifier diverged.

    Args:
        scores: scores of c classes for n examples; leading axes s, if any, are those of
            several classifiers. The result is a NumPy array for NumPy arrays, and a JAX
            array for JAX arrays.
        labels: classes, in [0, c), or -1.
    """
    xp = scores.__array_namespace__()
    count = scores.shape[-1]
    lead = (1,) * (scores.ndim - 2)
    own = labels.reshape(*lead, -1, 1)
    classes = xp.arange(count).reshape(*lead, 1, -1)
    score = xp.take_along_axis(scores, own, axis=-1)
    before = (scores > score) | ((scores == score) & (classes < own))
    ranked = (own[..., 0] >= 0) & xp.isfinite(scores).all(-1)
    return xp.where(ranked, before.sum(-1), UNRANKED)


def top_hits(scores: Float[Array, "*s n c"], labels: Int[Array, " n"]) -> Any:
    """Returns the number of examples with a top-1 and with a top-5 hit, [*s, 2].

    Args:
        scores: scores of c classes for n examples, of one or several classifiers s.
        labels: classes, in [0, c), or -1 if unknown, which is never a hit.
    """
    xp = scores.__array_namespace__()
    rank = label_rank(scores, labels)
    return xp.stack([(rank < k).sum(-1) for k in (1, 5)], axis=-1)


def top1(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Fraction of examples whose class has the highest score."""
    return float(np.mean(label_rank(scores, labels) < 1))


def top5(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Fraction of examples whose class is among the five with the highest scores.

    With five or fewer classes it is 1, unless labels are unknown or scores not finite.
    scikit-learn's `top_k_accuracy_score` differs: among classes with equal scores it
    ranks the class with the larger index first.
    """
    return float(np.mean(label_rank(scores, labels) < 5))


def mean_per_class(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> float:
    """Mean of the recalls of the classes that occur in the labels.

    This equals scikit-learn's `balanced_accuracy_score`, but does not import
    scikit-learn and does not warn if a predicted class does not occur in the labels.
    """
    right = label_rank(scores, labels) < 1
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))


def average_precision(
    scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
    """Area under the monotone precision-recall curve, in [0, 1].

    The precision at a recall is replaced by the maximum of the precisions at that
    recall and at higher recalls; scikit-learn's `average_precision_score` does not do
    this. Images with equal scores are retrieved together.

    Args:
        scores: scores of the images; larger if the image is more likely to show the
            class.
        labels: 1 if the image shows the class, -1 if it does not, 0 if the image is not
            counted (marked as difficult in VOC).

    Raises:
        ValueError: if no image shows the class.

    Source: the development kit of http://host.robots.ox.ac.uk/pascal/VOC/voc2010,
        VOCap.m.

    >>> scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    >>> labels = np.array([1, -1, 0, 1, -1])
    >>> print(round(average_precision(scores, labels), 4))  # (1 + 2/3) / 2
    0.8333
    """
    precision, recall = _best_precision(scores, labels)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def average_precision_11_point(
    scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
    """Mean of the monotone precision at the recalls 0, 0.1, ..., 1, in [0, 1].

    The precision at a recall is the maximum of the precisions at that recall and at
    higher recalls. This was the measure of the VOC challenge until 2009.

    Args:
        scores: scores of the images; larger if the image is more likely to show the
            class.
        labels: 1 if the image shows the class, -1 if it does not, 0 if the image is not
            counted (marked as difficult in VOC).

    Raises:
        ValueError: if no image shows the class.

    Source: the development kit of http://host.robots.ox.ac.uk/pascal/VOC/voc2007,
        VOCevalcls.m.

    >>> scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    >>> labels = np.array([1, -1, 0, 1, -1])
    >>> print(round(average_precision_11_point(scores, labels), 4))  # (6 + 5 * 2/3)/11
    0.8485
    """
    precision, recall = _best_precision(scores, labels)
    # Thresholds are compared in units of a tenth, which are exact in floating point: a
    # recall of 3/10 must reach the threshold of 0.3.
    reached = np.searchsorted(np.round(10 * recall, 9), np.arange(11))
    return float(np.mean(precision[reached]))


def _best_precision(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Monotone precision at each recall, and the recalls in ascending order up to 1."""
    counted = labels != 0
    scores, labels = scores[counted], labels[counted]
    if not (labels == 1).any():
        raise ValueError("no image shows the class: its average precision is undefined")
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(labels[order] == 1)[last_of_equals]
    precision = found / (np.flatnonzero(last_of_equals) + 1)
    return np.maximum.accumulate(precision[::-1])[::-1], found / found[-1]


def mean_average_precision(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n c"]
) -> float:
    """Mean over classes of the average precision, in [0, 1].

    Labels are 1 if the image shows the class, -1 if it does not, and 0 if the image is
    not counted for the class. Classes that no image shows are left out.
    """
    return _mean(average_precision, scores, labels)


def mean_average_precision_11_point(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n c"]
) -> float:
    """Mean over classes of the 11-point average precision, in [0, 1].

    Labels are 1 if the image shows the class, -1 if it does not, and 0 if the image is
    not counted for the class. Classes that no image shows are left out.
    """
    return _mean(average_precision_11_point, scores, labels)


def _mean(measure: Callable, scores: np.ndarray, labels: np.ndarray) -> float:
    shown = (labels == 1).any(axis=0)
    if not shown.any():
        raise ValueError(
            "no image shows any class, so that the mean average precision is "
            "undefined; give labeled images"
        )
    columns = zip(scores.T[shown], labels.T[shown], strict=True)
    return float(np.mean([measure(*column) for column in columns]))


# To add a metric, write a function and add it to one of these tables: the protocols
# `transfer` and `svm` and the choices of `--metric` are read from them.
ONE_LABEL: Mapping[str, Metric] = {  # labels [n] in [0, c)
    "top1": top1,
    "top5": top5,
    "mean_per_class": mean_per_class,
}
SEVERAL_LABELS: Mapping[str, Metric] = {  # labels [n, c] with values 1, 0 and -1
    "map": mean_average_precision,
    "map_11_point": mean_average_precision_11_point,
}
METRICS: Mapping[str, Metric] = {**ONE_LABEL, **SEVERAL_LABELS}


def find_metric(name: str, *, several_labels: bool) -> Metric:
    """Returns the function of a metric, which maps (scores, labels) to [0, 1].

    Args:
        name: name of the metric, a key of ONE_LABEL or SEVERAL_LABELS.
        several_labels: whether the metric must be for multi-label images; otherwise it
            must be for images with one label.

    Raises:
        ValueError: if there is no metric of that name for these images.
    """
    table = SEVERAL_LABELS if several_labels else ONE_LABEL
    if name not in table:
        *first, last = table
        several, one = "multi-label images", "images with one label"
        this, other = (several, one) if several_labels else (one, several)
        raise ValueError(
            f"metric={name!r} is not a metric for {this}; use {', '.join(first)} "
            f"or {last} here, and --protocol={'transfer' if several_labels else 'svm'} "
            f"for {other}"
        )
    return table[name]
