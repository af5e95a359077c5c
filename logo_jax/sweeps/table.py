"""Tables of the results of a sweep and of published values, as Markdown and JSON."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from logo_jax.sweeps.spec import Setting, Sweep
from logo_jax.sweeps.statistics import Differences, Reached, summary, verdict

Records = Mapping[tuple[str, int], Mapping[str, Any]]  # by cell and seed


def reached_in(records: Records) -> Reached:
    """Returns the metrics in the records of runs."""
    return {which: record["metrics"] for which, record in records.items()}


def rows(sweep: Sweep, records: Records) -> list[dict[str, Any]]:
    """Returns one row per cell: values by metric and seed, and their statistics.

    Args:
        sweep: the sweep, with its cells.
        records: records of the finished runs, with their "metrics" and "seconds".
    """
    differences = Differences(sweep, reached_in(records), sweep.metrics[0])
    return [_row(cell, sweep, records, differences) for cell in sweep.cells]


def _row(
    cell: Setting, sweep: Sweep, records: Records, differences: Differences
) -> dict[str, Any]:
    own = {
        seed: records[cell.name, seed]
        for seed in sweep.seeds
        if (cell.name, seed) in records
    }
    return {
        "cell": cell.name,
        "seeds": list(own),
        "seconds": [record["seconds"] for record in own.values()],
        "metrics": {
            name: summary([record["metrics"][name] for record in own.values()])
            for name in sweep.metrics
        },
        "published": cell.published,
        "baseline": cell.baseline,
        "over_baseline": differences.between(cell.name, cell.baseline),
    }


def markdown(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table.

    Metrics are mean ± standard deviation over seeds; minutes are the mean per run. The
    95 % confidence interval of the mean follows each difference. Unknown values are
    dashes, and a column that no cell of the sweep can fill is left out.
    """
    has_published = any(cell.published is not None for cell in sweep.cells)
    has_baseline = any(cell.baseline for cell in sweep.cells)
    head = ["cell", "n", "minutes", *sweep.metrics]
    head += ["published"] * has_published + [
        "compared with",
        "difference (95 %)",
    ] * has_baseline
    lines = [head]
    for row in rows:
        columns = [row["cell"], str(len(row["seeds"])), minutes(row["seconds"])]
        columns += [spread(row["metrics"][name]) for name in sweep.metrics]
        if has_published:
            published = row["published"]
            columns.append("-" if published is None else f"{published:.2f}")
        if has_baseline:
            columns += [row["baseline"] or "-", interval(row["over_baseline"])]
        lines.append(columns)
    return as_table(lines)


def claims(sweep: Sweep, records: Records) -> str:
    """Returns a Markdown table of the sweep's claims and the differences of the runs.

    Differences have the format of `markdown`; the verdict is for the first metric.
    """
    lines = [["claim", "published", *sweep.metrics, "verdict"]]
    reached = reached_in(records)
    of_metric = [Differences(sweep, reached, metric) for metric in sweep.metrics]
    for claim in sweep.claims:
        found = [each.between(claim.cell, claim.over) for each in of_metric]
        intervals = [interval(difference) for difference in found]
        judged = verdict(claim.published, found[0])
        lines.append([claim.text, f"{claim.published:+.1f}", *intervals, judged])
    return as_table(lines)


def during(sweep: Sweep, records: Records) -> str:
    """Returns a Markdown table of differences at each evaluation of the first metric.

    Every cell with a baseline is a row, and every share of the training, in percent of
    a run's own steps, is a column. Values of runs of different length are therefore
    compared at equal shares of each. Differences have the format of `markdown`. The
    table is empty, "", unless all runs were evaluated more than once, at equal shares.
    """
    metric = sweep.metrics[0]
    curves = {
        which: record.get("curves", {}).get(metric, [])
        for which, record in records.items()
    }
    shares = {_shares(curve) for curve in curves.values()}
    compared = [cell for cell in sweep.cells if cell.baseline]
    if len(shares) != 1 or len(columns := shares.pop()) < 2 or not compared:
        return ""
    lines = [["difference", *(f"{share} %" for share in columns)]]
    lines += [[f"{cell.name} − {cell.baseline}"] for cell in compared]
    for i in range(len(columns)):
        reached = {which: {metric: curve[i][1]} for which, curve in curves.items()}
        differences = Differences(sweep, reached, metric)
        for line, cell in zip(lines[1:], compared, strict=True):
            line.append(interval(differences.between(cell.name, cell.baseline)))
    return as_table(lines)


def _shares(curve: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Steps of the values of a curve in percent of the last of them."""
    return tuple(round(100 * step / curve[-1][0]) for step, _ in curve)


def averaged(
    sweep: Sweep, records: Records
) -> dict[str, list[dict[str, float | None]]]:
    """Returns the curves of each cell, averaged over seeds, as rows of metrics.

    A row has `step`, and for each metric its mean and, as `METRIC/std`, its standard
    deviation. Cells whose runs were evaluated at most once are left out.
    """
    found = {}
    for cell in sweep.cells:
        own = [
            records[cell.name, seed].get("curves", {})
            for seed in sweep.seeds
            if (cell.name, seed) in records
        ]
        rows = [
            {"step": step, metric: mean, f"{metric}/std": std}
            for metric in sweep.metrics
            for step, mean, std in _average([run.get(metric, []) for run in own])
        ]
        if len({row["step"] for row in rows}) > 1:
            found[cell.name] = rows
    return found


def _average(curves: Sequence[Sequence[Sequence[float]]]) -> Iterator[tuple]:
    """Yields step, mean and standard deviation at the steps that all curves have."""
    values = [{step: value for step, value in curve} for curve in curves]
    for step in sorted(set.intersection(*map(set, values)) if values else ()):
        found = summary([of_step[step] for of_step in values])
        yield step, found["mean"], found["std"]


def as_table(lines: Sequence[Sequence[str]]) -> str:
    """Formats a header and rows as a Markdown table."""
    head, *rest = lines
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def minutes(seconds: Sequence[float]) -> str:
    """Formats the mean of seconds in minutes; "-" if there are none.

    >>> minutes([60.0, 90.0]), minutes([])
    ('1.2', '-')
    """
    return f"{statistics.mean(seconds) / 60:.1f}" if seconds else "-"


def spread(summary: Mapping[str, Any]) -> str:
    """Formats the mean and, for two or more values, the standard deviation.

    >>> spread(summary([1.0, 3.0])), spread(summary([1.0])), spread(summary([]))
    ('2.00 ± 1.41', '1.00', '-')
    """
    mean, std = summary["mean"], summary["std"]
    if mean is None:
        return "-"
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def interval(difference: Mapping[str, Any]) -> str:
    """Formats the mean and, if it is known, its 95 % confidence interval.

    >>> interval({"mean": 2.0, "margin": 1.5}), interval({"mean": 2.0, "margin": None})
    ('+2.00 (+0.50 to +3.50)', '+2.00')
    >>> interval({"mean": None, "margin": None})
    '-'
    """
    mean, margin = difference["mean"], difference["margin"]
    if mean is None:
        return "-"
    if margin is None:
        return f"{mean:+.2f}"
    return f"{mean:+.2f} ({mean - margin:+.2f} to {mean + margin:+.2f})"
