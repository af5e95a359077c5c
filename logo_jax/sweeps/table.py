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
    return {
        "cell": cell.name,
        "seeds": seeds,
        "metrics": {
            name: summary([own[seed][name] for seed in seeds]) for name in sweep.metrics
        },
        "published": cell.published,
        "baseline": cell.baseline,
        "over_baseline": difference(
            cell.name, cell.baseline, sweep, reached, sweep.metrics[0]
        ),
    }


def difference(
    cell: str, other: str, sweep: Sweep, reached: Reached, metric: str
) -> dict[str, Any]:
    """By how much a cell is above another: summary over the seeds that both have."""
    both = [
        seed
        for seed in sweep.seeds
        if (cell, seed) in reached and (other, seed) in reached
    ]
    return summary(
        [reached[cell, seed][metric] - reached[other, seed][metric] for seed in both]
    )


def judged(sweep: Sweep, reached: Reached) -> str:
    """The sweep's claims beside what the runs say of them, as a table.

    Behind a difference is the interval that holds its mean with 95 % confidence; the
    verdict is that of the first metric.
    """
    head = ["claim", "published", *sweep.metrics, "verdict"]
    lines = [head, ["---"] * len(head)]
    for claim in sweep.claims:
        found = [
            difference(claim.cell, claim.over, sweep, reached, metric)
            for metric in sweep.metrics
        ]
        lines.append(
            [
                claim.text,
                f"{claim.published:+.1f}",
                *map(interval, found),
                verdict(claim.published, found[0]),
            ]
        )
    return _as_table(lines)


def verdict(published: float, summary: Mapping[str, Any]) -> str:
    """What an interval says of a published difference: of its sign, and of its size.

    >>> verdict(4.8, summary([2.0, 2.1, 2.2]))
    'holds, but is smaller'
    >>> verdict(4.8, summary([1.0, 3.0, 5.0])), verdict(4.8, summary([-1.0, 0.0, 1.0]))
    ('not decided', 'not decided, but is smaller')
    >>> verdict(-7.4, summary([2.0, 2.1, 2.2])), verdict(1.0, summary([1.0]))
    ('the reverse', '-')
    """
    mean, margin = summary["mean"], summary["margin"]
    if margin is None:
        return "-"
    sign = 1 if published > 0 else -1
    low, high = sorted((sign * (mean - margin), sign * (mean + margin)))
    if high < 0:
        return "the reverse"
    holds = "holds" if low > 0 else "not decided"
    if abs(published) > high:
        return f"{holds}, but is smaller"
    return f"{holds}, and is larger" if abs(published) < low else holds


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
    return _as_table(lines)


def _as_table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as Markdown."""
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
