"""Average precision, as PASCAL VOC has measured it since 2010."""

import numpy as np
from jaxtyping import Float, Int


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
    counted = labels != 0
    scores, labels = scores[counted], labels[counted]
    if not (labels == 1).any():
        raise ValueError("no image shows the class: its average precision is undefined")
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(labels[order] == 1)[last_of_equals]
    precision = found / (np.flatnonzero(last_of_equals) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(found, prepend=0) * best_from_here) / found[-1])


def mean_average_precision(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, "n c"]
) -> float:
    """The mean over classes of `average_precision`, in [0, 1]."""
    columns = zip(scores.T, labels.T, strict=True)
    return float(np.mean([average_precision(*column) for column in columns]))
