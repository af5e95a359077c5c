"""Effects of settings: paired differences with their confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from logo_jax.visualization.figure import COLORS, RenderedFigure, png


class Difference(NamedTuple):
    """Differences between two settings, one for each seed.

    Attributes:
        name: of the setting.
        over: name of the setting it is compared with.
        values: of each seed that both have, at least one.
        margin: half width of the mean's interval; None for a single value.
    """

    name: str
    over: str
    values: Sequence[float]
    margin: float | None


def plot_effects(
    name: str, metric: str, differences: Sequence[Difference]
) -> RenderedFigure:
    """Figure of paired differences: each seed, the mean and its interval.

    Args:
        name: of the file.
        metric: that was measured.
        differences: from top to bottom, at least one.
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
        caption="A ring is one seed's difference, the point their mean, the line the "
        "interval that holds it with 95 % confidence; blue where that is without 0.",
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
