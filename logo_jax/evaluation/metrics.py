"""Metrics of class scores, in [0, 1], by the names that data sets give them."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int


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


def average_precision(
    scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> float:
    """Area under the precision-recall curve made monotone, in [0, 1].

    Precision at a recall is the best at that recall or a higher one. Images of equal
    score are retrieved together.

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


METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "top1": top1,
    "top5": top5,
    "mean_per_class": mean_per_class,
    "map": mean_average_precision,
    "map_11_point": mean_average_precision_11_point,
}
