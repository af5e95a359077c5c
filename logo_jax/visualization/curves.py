"""Plots of metrics over training steps, with a panel per metric and a line per run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from logo_jax.training.logging.metric_writer import is_knn
from logo_jax.visualization.figure import png
from logo_jax.visualization.rendered import COLORS, RenderedFigure

Rows = Sequence[
    Mapping[str, Any]
]  # rows of one run: `step` and metrics; a metric is None if it is not finite
MOST_COLUMNS = 3


class Curve(NamedTuple):
    """One metric of one run.

    Attributes:
        steps: step of each value, [n].
        values: values of the metric, [n]; NaN if a value is not finite.
        spread: standard deviation over seeds, [n]; NaN for a single seed.
    """

    steps: np.ndarray
    values: np.ndarray
    spread: np.ndarray


class Group(NamedTuple):
    """Metrics that share a figure.

    Attributes:
        name: name of the figure's file.
        title: title of the figure.
        caption: caption, which explains how to read the figure.
        holds: function that returns whether a metric belongs to the figure.
    """

    name: str
    title: str
    caption: str
    holds: Callable[[str], bool]


def _is_accuracy(name: str) -> bool:
    of_evaluation = is_knn(name) or name.startswith("linear/")
    return of_evaluation and name.endswith(("top1", "/map"))


def _is_speed(name: str) -> bool:
    return name in ("images_per_second", "data_wait_percent")


def _is_health(name: str) -> bool:
    return name.startswith("health/") or name == "grad_norm"


def _is_loss(name: str) -> bool:
    return "/" not in name and not _is_speed(name) and not _is_health(name)


ACCURACY = Group(
    "knn",
    "Accuracy during training",
    "Top-1 accuracy on the test images, or mean average precision if images have "
    "several labels, in percent, of kNN with k neighbors at temperature t and training "
    "images as bank, or of a linear classifier.",
    _is_accuracy,
)
GROUPS = (
    ACCURACY,
    Group("loss", "Loss terms", "Logged values of each term of the loss.", _is_loss),
    Group(
        "health",
        "Health",
        "Signs of a collapse are a decrease of the rank and the standard deviation of "
        "the embeddings, or a vanishing gradient.",
        _is_health,
    ),
    Group(
        "throughput",
        "Throughput",
        "Images per second over all devices, and the percentage of time spent waiting "
        "for data.",
        _is_speed,
    ),
)


def curve(rows: Rows, name: str) -> Curve:
    """Returns the values of a metric in the rows that have it; None becomes NaN."""
    has = [row for row in rows if name in row]
    columns = (
        [np.nan if row.get(key) is None else row[key] for row in has]
        for key in (name, f"{name}/std")
    )
    return Curve(np.array([row["step"] for row in has]), *map(np.array, columns))


def metric_names(runs: Mapping[str, Rows]) -> list[str]:
    """Returns the names of metrics of all runs, in order of first appearance.

    The names `NAME/std` and `NAME/seed_i`, which refer to seeds, are left out.
    """
    rows = [row for rows in runs.values() for row in rows]
    every = dict.fromkeys(name for row in rows for name in row if name != "step")
    return [name for name in every if not _of_seeds(name, every)]


def _of_seeds(name: str, every: Mapping[str, Any]) -> bool:
    stem, _, last = name.rpartition("/")
    return stem in every and (last == "std" or last.startswith("seed_"))


def plot_curves(
    runs: Mapping[str, Rows], groups: Sequence[Group] = GROUPS
) -> list[RenderedFigure]:
    """Returns a figure for each group that has a metric of at least one run.

    Args:
        runs: rows of metrics.jsonl, by name of the run.
        groups: groups of metrics, one figure each.
    """
    names = metric_names(runs)
    by_group = [(group, list(filter(group.holds, names))) for group in groups]
    return [_figure(group, found, runs) for group, found in by_group if found]


def _figure(
    group: Group, names: Sequence[str], runs: Mapping[str, Rows]
) -> RenderedFigure:
    columns = min(MOST_COLUMNS, len(names))
    lines = -(-len(names) // columns)
    size = (10.0, 0.6 + lines * (3.4 if columns < MOST_COLUMNS else 2.3))

    def paint(figure: Figure) -> None:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, name in zip(grid, names, strict=False):
            _panel(axes, name, runs)
        for axes in grid[len(names) :]:
            axes.set_axis_off()
        figure.supxlabel("step", fontsize=9)
        if len(runs) > 1:
            handles = grid[0].get_lines()
            figure.legend(handles, list(runs), loc="outside upper center", ncols=3)

    ends = "; ".join(_last_values(name, runs) for name in names)
    alt = f"Line plots over steps. Last values: {ends}."
    return RenderedFigure(group.name, group.title, group.caption, alt, png(size, paint))


def _panel(axes: Axes, name: str, runs: Mapping[str, Rows]) -> None:
    for i, rows in enumerate(runs.values()):
        steps, values, spread = curve(rows, name)
        color = COLORS[i % len(COLORS)]
        marker = "o" if len(steps) < 12 else ""
        dashes = "-" if i < len(COLORS) else "--"  # colors are used again
        axes.plot(
            steps, values, dashes, color=color, marker=marker, markersize=3, lw=1.4
        )
        low, high = values - spread, values + spread
        axes.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
    axes.set_title(name)
    axes.set_xlim(left=0)


def _last_values(name: str, runs: Mapping[str, Rows]) -> str:
    return f"{name} " + ", ".join(
        f"{last(rows, name)} ({run})" for run, rows in runs.items()
    )


def last(rows: Rows, name: str) -> str:
    """Returns the last value of a metric with four digits; "-" if there is none."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{values[-1]:.4g}" if values else "-"
