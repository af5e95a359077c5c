"""What a sweep's runs reached, beside what is published: as Markdown and as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from logo_jax.sweeps.description import Cell, Sweep

Reached = Mapping[tuple[str, int], Mapping[str, float]]  # by cell and seed, by metric
CONFIDENCE = 0.95


def rows(sweep: Sweep, reached: Reached) -> list[dict[str, Any]]:
    """One row a cell: its values by metric and seed, and what is said of them.

    Args:
        sweep: the cells.
        reached: metrics of the runs that are finished.
    """
    return [_row(cell, sweep, reached) for cell in sweep.cells]


def _row(cell: Cell, sweep: Sweep, reached: Reached) -> dict[str, Any]:
    seeds = [seed for seed in sweep.seeds if (cell.name, seed) in reached]
    own = {seed: reached[cell.name, seed] for seed in seeds}
    first = sweep.metrics[0]
    differences = [
        own[seed][first] - reached[cell.baseline, seed][first]
        for seed in seeds
        if (cell.baseline, seed) in reached
    ]
    return {
        "cell": cell.name,
        "seeds": seeds,
        "metrics": {
            name: summary([own[seed][name] for seed in seeds]) for name in sweep.metrics
        },
        "published": cell.published,
        "baseline": cell.baseline,
        "over_baseline": summary(differences),
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Values, their number and mean, the standard deviation of a sample (n - 1).

    `margin` is half of the mean's 95 % interval by Student's t.

    >>> summary([1.0, 3.0])["mean"], summary([1.0])["std"], summary([])["mean"]
    (2.0, None, None)
    >>> round(summary([1.0, 3.0])["margin"], 2)  # 12.71 standard errors: n is 2
    12.71
    """
    n = len(values)
    std = statistics.stdev(values) if n > 1 else None
    return {
        "values": list(values),
        "n": n,
        "mean": statistics.mean(values) if values else None,
        "std": std,
        "margin": None if std is None else _standard_errors(n) * std / n**0.5,
    }


def _standard_errors(n: int) -> float:
    """How many of them are half of the interval for the mean of n values."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))


def markdown(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table, mean ± std over seeds; a dash where nothing is known.

    A column that no cell of the sweep can fill is left out. Behind a difference is the
    interval that holds its mean with 95 % confidence.
    """
    has_published = any(cell.published is not None for cell in sweep.cells)
    has_baseline = any(cell.baseline for cell in sweep.cells)
    head = ["cell", "n", *sweep.metrics]
    head += ["published"] * has_published + ["over", "by (95 %)"] * has_baseline
    lines = [head, ["---"] * len(head)]
    for row in rows:
        columns = [row["cell"], str(len(row["seeds"]))]
        columns += [spread(row["metrics"][name]) for name in sweep.metrics]
        if has_published:
            published = row["published"]
            columns.append("-" if published is None else f"{published:.2f}")
        if has_baseline:
            columns += [row["baseline"] or "-", interval(row["over_baseline"])]
        lines.append(columns)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(summary: Mapping[str, Any]) -> str:
    """Mean and, of two or more, standard deviation.

    >>> spread(summary([1.0, 3.0])), spread(summary([1.0])), spread(summary([]))
    ('2.00 ± 1.41', '1.00', '-')
    """
    mean, std = summary["mean"], summary["std"]
    if mean is None:
        return "-"
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def interval(summary: Mapping[str, Any]) -> str:
    """Mean and, of two or more, the interval that it is in with 95 % confidence.

    >>> interval(summary([1.0, 3.0])), interval(summary([1.0])), interval(summary([]))
    ('+2.00 (-10.71 to +14.71)', '+1.00', '-')
    """
    mean, margin = summary["mean"], summary["margin"]
    if mean is None:
        return "-"
    if margin is None:
        return f"{mean:+.2f}"
    return f"{mean:+.2f} ({mean - margin:+.2f} to {mean + margin:+.2f})"
