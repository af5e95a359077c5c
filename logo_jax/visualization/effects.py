"""Plots of effects of settings: paired differences with confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from logo_jax.visualization.figure import png
from logo_jax.visualization.rendered import COLORS, RenderedFigure


class Difference(NamedTuple):
    """Differences between two settings, one for each seed.

    Attributes:
        name: name of the setting.
        over: name of the setting that it is compared with.
        values: difference for each seed that both settings have; at least one.
        margin: half width of the confidence interval of the mean; None if the interval
            is unknown.
    """

    name: str
    over: str
    values: Sequence[float]
    margin: float | None


def plot_effects(
    name: str, metric: str, differences: Sequence[Difference]
) -> RenderedFigure:
    """Returns a figure of paired differences: each seed, the mean and its interval.

    Args:
        name: name of the file.
        metric: name of the metric.
        differences: differences, from top to bottom; at least one.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for place, difference in enumerate(differences):
            _line(axes, place, difference)
        axes.axvline(0, color="#1c2330", lw=1)
        axes.set_yticks(
            range(len(differences)), [f"{x.name} − {x.over}" for x in differences]
        )
        axes.invert_yaxis()
        axes.set(xlabel=f"difference of {metric}")

    return RenderedFigure(
        name=name,
        title="Paired differences",
        caption="Rings are the differences for each seed, points are their means, and "
        "lines are 95 % confidence intervals of the means. Differences whose interval "
        "excludes 0 are blue.",
        alt="; ".join(
            f"{x.name} over {x.over} {np.mean(x.values):+.2f}" for x in differences
        ),
        png=png((8.0, 1.0 + 0.27 * len(differences)), paint),
    )


def _line(axes: Axes, place: int, difference: Difference) -> None:
    values, mean = difference.values, float(np.mean(difference.values))
    decided = difference.margin is not None and abs(mean) > difference.margin
    color = COLORS[0] if decided else COLORS[8]
    style = {"color": color, "elinewidth": 2.0, "ms": 5.0}
    axes.errorbar(mean, place, xerr=difference.margin, fmt="o", **style)
    rings = {"facecolors": "none", "edgecolors": color, "s": 22}
    axes.scatter(values, [place] * len(values), alpha=0.7, **rings)
