"""Figures that compare the learned affinity of crops with their cosine similarity.

scipy.stats and scikit-learn are imported inside the functions that use them, because
importing both takes two seconds, which would delay every start of `logo_jax.report`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from logo_jax.visualization.figure import bare, png
from logo_jax.visualization.rendered import COLORS, RenderedFigure

LEARNED, COSINE = "learned affinity", "cosine"
SHADE = "#f0f2f6"


class Scores(NamedTuple):
    """Two similarity measures of the same pairs of crops.

    Attributes:
        learned: learned affinity of each pair, [n].
        cosine: cosine similarity of each pair, [n].
    """

    learned: Float[np.ndarray, " n"]
    cosine: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A reference crop and other crops, in groups of equal size.

    Attributes:
        reference: reference crop, with values in [0, 1].
        crops: other crops, ordered by group, with values in [0, 1].
        groups: names of the groups.
        scores: scores of the reference with each crop.
    """

    reference: Float[np.ndarray, "s s 3"]
    crops: Float[np.ndarray, "n s s 3"]
    groups: Sequence[str]
    scores: Scores

    @property
    def means(self) -> dict[str, Scores]:
        """Mean of the normalized scores in each group."""
        parts = [
            x.reshape(len(self.groups), -1).mean(1)
            for x in map(normalized, self.scores)
        ]
        return {
            group: Scores(*values)
            for group, values in zip(self.groups, zip(*parts, strict=True), strict=True)
        }


def normalized(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Scales values from [min, max] to [0, 1]; returns zeros if all values are equal.

    >>> normalized(np.array([2.0, 4.0, 3.0])).tolist()
    [0.0, 1.0, 0.5]
    """
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def rank_correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation; NaN without a warning if an argument is constant.

    >>> round(rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 9.0])), 6)
    1.0
    """
    from scipy.stats import spearmanr

    if not (np.ptp(a) and np.ptp(b)):
        return float("nan")
    found: Any = spearmanr(a, b)
    return float(found.statistic)


def overlaps(
    a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
    """Intersection over union (IoU) of pairs of boxes, in [0, 1].

    Args:
        a: (top, left, height, width) of the first box of each pair.
        b: (top, left, height, width) of the second box of each pair.

    >>> overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 1, 2, 2]])).round(3)
    array([0.333])
    """
    start = np.maximum(a[:, :2], b[:, :2])
    stop = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = (stop - start).clip(0).prod(1)
    return shared / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared)


class Binned(NamedTuple):
    """Means of y in bins of x.

    Attributes:
        x: mean of x in each bin, [k].
        y: mean of y in each bin, [k].
        error: standard error of the mean of y in each bin, [k].
    """

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray


def binned(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], bins: int = 10
) -> Binned:
    """Returns means of y in bins between quantiles of x.

    Equal values of x are in the same bin, so there may be fewer bins than requested.
    Bins with a single pair are left out.

    >>> binned(np.array([0.0, 1, 2, 3]), np.array([1.0, 3, 5, 9]), bins=2).y.tolist()
    [2.0, 7.0]
    """
    from scipy.stats import binned_statistic

    edges: Any = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)))
    if len(edges) == 1:  # all x are equal
        edges = np.append(edges, edges + 1)
    counts = binned_statistic(x, y, "count", edges).statistic
    several = counts > 1
    mean_x, mean_y = binned_statistic(x, [x, y], "mean", edges).statistic[:, several]
    deviations = binned_statistic(x, y, "std", edges).statistic[several]
    return Binned(mean_x, mean_y, deviations / np.sqrt(counts[several] - 1))


def compared(name: str, found: Comparison) -> RenderedFigure:
    """Returns a figure of the reference, of both measures for each crop, and the crops.

    Args:
        name: name of the file.
        found: crops of any number of groups, and their scores.

    Source: LoGo, supplement, Figure 2, https://arxiv.org/abs/2203.17205.
    """
    means = "; ".join(
        f"{group} {own.learned:.2f} for the affinity, {own.cosine:.2f} for the cosine"
        for group, own in found.means.items()
    )
    agree = f"their rank correlation is {rank_correlation(*found.scores):.2f}"
    lines = len(found.groups)

    def paint(figure: Figure) -> None:
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.6, lines])
        top, bottom = parts
        left, right = top.subplots(1, 2, width_ratios=[1, 4.6])
        left.imshow(found.reference, interpolation="nearest")
        left.set_title("reference")
        bare(left, COLORS[0])
        _measures(right, found)
        _crops(bottom.subplots(lines, len(found.crops) // lines, squeeze=False), found)

    return RenderedFigure(
        name=name,
        title="One crop compared with others",
        caption="Learned affinity and cosine similarity of the reference with each of "
        "the crops below, in their order, each scaled from its range to [0, 1]; "
        f"{agree}. The numbers below a crop are affinity and cosine. Means: {means}. "
        "The affinity is the score of the regressor with running statistics, averaged "
        "over both orders of the two crops.",
        alt=f"Two curves over {len(found.crops)} crops in groups: "
        f"{', '.join(found.groups)}; {agree}. Means: {means}.",
        png=png((10.0, 3.0 + 1.25 * lines), paint),
    )


def _measures(axes: Axes, found: Comparison) -> None:
    places = np.arange(len(found.crops))
    each = len(places) // len(found.groups)
    for i, group in enumerate(found.groups):
        middle = (i + 0.5) * each - 0.5
        if i % 2 == 0:
            axes.axvspan(i * each - 0.5, (i + 1) * each - 0.5, color=SHADE, lw=0)
        axes.text(middle, 1.08, group, ha="center", va="bottom", fontsize=8)
    for label, values, marker, color in zip(
        (LEARNED, COSINE), found.scores, "os", COLORS, strict=False
    ):
        style = {"color": color, "marker": marker, "ms": 3.5, "lw": 1.2}
        axes.plot(places, normalized(values), label=label, **style)
    axes.set(ylim=(-0.05, 1.07), xlim=(-0.5, len(places) - 0.5))
    axes.set(xlabel="crop", ylabel="normalized")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _crops(grid: np.ndarray, found: Comparison) -> None:
    values = zip(*map(normalized, found.scores), strict=True)
    for axes, crop, (learned, cosine) in zip(
        grid.ravel(), found.crops, values, strict=True
    ):
        axes.imshow(crop, interpolation="nearest")
        axes.set_xlabel(f"{learned:.2f}, {cosine:.2f}", fontsize=7)
        bare(axes)
    for axes, group in zip(grid[:, 0], found.groups, strict=True):
        axes.set_ylabel(group, fontsize=8)


def roc_auc(
    positive: Float[np.ndarray, " n"], negative: Float[np.ndarray, " m"]
) -> float:
    """Area under the ROC curve: how often a positive score exceeds a negative score.

    >>> roc_auc(np.array([2.0, 4.0]), np.array([1.0, 3.0]))
    0.75
    """
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([1, 0], [len(positive), len(negative)])
    return float(roc_auc_score(labels, np.concatenate([positive, negative])))


def over_overlap(
    name: str, overlap: Float[np.ndarray, " n"], same: Scores, different: Scores
) -> RenderedFigure:
    """Returns a figure of both measures against the overlap of the crops' boxes.

    Args:
        name: name of the file.
        overlap: intersection over union of each pair of crops of the same image, [n].
        same: scores of these pairs.
        different: scores of pairs of crops of two images.
    """
    rows = list(zip((LEARNED, COSINE), same, different, COLORS, strict=False))

    def paint(figure: Figure) -> None:
        for axes, row in zip(figure.subplots(1, 2), rows, strict=True):
            _over_overlap(axes, overlap, *row)

    facts = "; ".join(
        f"{label}: the rank correlation with the overlap is "
        f"{rank_correlation(overlap, values):.2f}, and a pair of the same image scores "
        f"higher than a pair of two images in {100 * roc_auc(values, others):.0f} % of "
        "cases"
        for label, values, others, _ in rows
    )
    return RenderedFigure(
        name=name,
        title="Similarity of two crops of an image, by their overlap",
        caption=f"{len(overlap):,} pairs of local crops of the same image, one point "
        "each. The solid line is the mean in bins with equal numbers of pairs, with "
        "its standard error; the dashed line is the mean for crops of two images. "
        f"{facts[0].upper()}{facts[1:]}.",
        alt=f"Two scatter plots over the overlap of boxes. {facts}.",
        png=png((10.0, 4.2), paint),
    )


def _over_overlap(
    axes: Axes,
    overlap: np.ndarray,
    label: str,
    values: np.ndarray,
    others: np.ndarray,
    color: str,
) -> None:
    axes.scatter(overlap, values, s=9, color=color, alpha=0.35, lw=0)
    x, y, error = binned(overlap, values)
    axes.errorbar(x, y, error, fmt="o-", color="#1c2330", ms=4, lw=1.5)
    axes.axhline(others.mean(), color="#1c2330", ls="--", lw=1)
    axes.set(xlabel="overlap of the boxes (IoU)", ylabel=label)
    axes.set_title(f"rank correlation {rank_correlation(overlap, values):.2f}")
