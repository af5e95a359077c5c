"""Metrics of class scores, in [0, 1], by the names that data sets give them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int

Array: TypeAlias = jax.Array | np.ndarray
Metric: TypeAlias = Callable[[np.ndarray, np.ndarray], float]

UNRANKED = 2**31 - 1  # rank of a label that is unknown or cannot be ranked


def label_rank(scores: Float[Array, "*s n c"], labels: Int[Array, " n"]) -> Any:
    """Number of classes that are ranked before the label's, [*s, n].

    It is 0 if the label is the predicted class, and below k if it is among the first k.
    Of equal scores the earlier class comes first. `UNRANKED`, which is above every k,
    stands for an unknown label (-1), and for any label if scores are not finite, as of
    a classifier that diverged.

    Args:
        scores: of classes; NumPy's arrays give NumPy's, JAX's give JAX's.
        labels: in [0, c), or -1.
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
    """How many examples have their label first, and among the first five, [*s, 2].

    Arguments are those of `label_rank`.
    """
    xp = scores.__array_namespace__()
    rank = label_rank(scores, labels)
    return xp.stack([(rank < k).sum(-1) for k in (1, 5)], axis=-1)


def top1(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Fraction of examples whose class scores highest."""
    return float(np.mean(label_rank(scores, labels) < 1))


def top5(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Fraction of examples whose class is among the first five, or fewer if there are.

    Not scikit-learn's `top_k_accuracy_score`: of equal scores that ranks the later
    class first.
    """
    return float(np.mean(label_rank(scores, labels) < 5))


def mean_per_class(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> float:
    """The mean of the classes' recalls, over the classes that labels have.

    scikit-learn's `balanced_accuracy_score`, without its import and its warning where
    a class is predicted that labels do not have.
    """
    right = label_rank(scores, labels) < 1
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))


def average_precision(
    scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
    """Area under the precision-recall curve made monotone, in [0, 1].

    Precision at a recall is the best at that recall or a higher one; scikit-learn's
    `average_precision_score` does not make it monotone. Images of equal score are
    retrieved together.

    Args:
        scores: larger for images more likely to show the class.
        labels: 1 where an image shows it, -1 where not, 0 where that is not counted
            (VOC's difficult ones).

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
    """The mean of the best precisions at recalls 0, 0.1, ..., 1 or higher, in [0, 1].

    VOC's own measure until 2009. Arguments and errors are `average_precision`'s.

    Source: the development kit of http://host.robots.ox.ac.uk/pascal/VOC/voc2007,
        VOCevalcls.m.

    >>> scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    >>> labels = np.array([1, -1, 0, 1, -1])
    >>> print(round(average_precision_11_point(scores, labels), 4))  # (6 + 5 * 2/3)/11
    0.8485
    """
    precision, recall = _best_precision(scores, labels)
    # in tenths, which floats hold: a recall of 3/10 must reach the threshold of 0.3
    reached = np.searchsorted(np.round(10 * recall, 9), np.arange(11))
    return float(np.mean(precision[reached]))


def _best_precision(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Best precision at each recall or a higher one, and the recalls, rising to 1."""
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
    """The mean over classes of `average_precision`, in [0, 1]."""
    return _mean(average_precision, scores, labels)


def mean_average_precision_11_point(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n c"]
) -> float:
    """The mean over classes of `average_precision_11_point`, in [0, 1]."""
    return _mean(average_precision_11_point, scores, labels)


def _mean(measure: Callable, scores: np.ndarray, labels: np.ndarray) -> float:
    columns = zip(scores.T, labels.T, strict=True)
    return float(np.mean([measure(*column) for column in columns]))


# A metric is a function and a row of one of these tables: `transfer`, `svm` and the
# choices of `--metric` follow.
ONE_LABEL: Mapping[str, Metric] = {  # labels [n] in [0, c)
    "top1": top1,
    "top5": top5,
    "mean_per_class": mean_per_class,
}
SEVERAL_LABELS: Mapping[str, Metric] = {  # labels [n, c] of 1, 0 and -1
    "map": mean_average_precision,
    "map_11_point": mean_average_precision_11_point,
}
METRICS: Mapping[str, Metric] = {**ONE_LABEL, **SEVERAL_LABELS}


def find_metric(name: str, *, several_labels: bool) -> Metric:
    """The metric of that name, for images of several labels or of one.

    Raises:
        ValueError: if it is not for such images.
    """
    table = SEVERAL_LABELS if several_labels else ONE_LABEL
    if name not in table:
        *first, last = table
        several, one = "several labels", "one label"
        this, other = (several, one) if several_labels else (one, several)
        raise ValueError(
            f"metric={name!r} is not one of {this} an image; use {', '.join(first)} "
            f"or {last} here, and {'logistic' if several_labels else 'svm'} for images "
            f"of {other}"
        )
    return table[name]
