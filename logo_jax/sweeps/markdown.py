"""Writes the results of a sweep into a section of a Markdown page."""

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from logo_jax.sweeps import table
from logo_jax.sweeps.spec import Sweep
from logo_jax.training import atomic
from logo_jax.visualization import curves, effects
from logo_jax.visualization.effects import Difference
from logo_jax.visualization.rendered import RenderedFigure

Finished = Sequence[Mapping[str, Any]]  # records of runs, as the sweep writes them


def write(
    page: pathlib.Path,
    name: str,
    sweep: Sweep,
    records: table.Records,
    command: str,
) -> None:
    """Writes the results of finished runs into a page, and their figures to figures/.

    The section has the table, the costs, the figure of differences, the claims, and, if
    runs were evaluated more than once, the differences and curves over the training.
    The folder figures/ is in the folder of the page.

    Args:
        page: an existing Markdown file.
        name: name of the section and of its figures.
        sweep: the sweep, with its cells.
        records: records of the finished runs, by cell and seed.
        command: command that trained the runs.

    Raises:
        ValueError: if no run is finished.
        FileNotFoundError: if the page does not exist.
    """
    if not records:
        raise ValueError(f"no run of {name} is finished, so there are no results yet")
    rows = table.rows(sweep, records)
    parts = [table.markdown(sweep, rows), costs(list(records.values()))]
    parts += written(page, _effects(name, sweep, rows))
    if sweep.claims:
        parts.append(table.claims(sweep, records))
    if over_time := table.during(sweep, records):
        parts.append(over_time)
    parts += written(page, _curves(name, sweep, records))
    found = "\n\n".join([*parts, f"    {command}"])
    # the page is read last, because another sweep may have written to it meanwhile
    atomic.write_text(page, placed(page.read_text(), name, found))


def written(page: pathlib.Path, figure: RenderedFigure | None) -> list[str]:
    """Writes a figure, if there is one, to figures/; returns Markdown that shows it."""
    if figure is None:
        return []
    file = pathlib.Path("figures", f"{figure.name}.png")
    (page.parent / file).parent.mkdir(exist_ok=True)
    with atomic.replace(page.parent / file) as partial:
        partial.write_bytes(figure.png)
    return [f"![{figure.title}]({file.as_posix()})"]


def _curves(name: str, sweep: Sweep, records: table.Records) -> RenderedFigure | None:
    """Returns the figure of the curves; None if no run was evaluated more than once."""
    averaged = table.averaged(sweep, records)
    group = curves.ACCURACY._replace(
        name=f"{name}_curves", holds=sweep.metrics.__contains__
    )
    return next(iter(curves.plot_curves(averaged, [group])), None)


def _effects(
    name: str, sweep: Sweep, rows: Sequence[Mapping[str, Any]]
) -> RenderedFigure | None:
    """Returns the figure of differences; None if none between two cells is known."""
    shown = [
        Difference(row["cell"], row["baseline"], own["values"], own["margin"])
        for row in rows
        if (own := row["over_baseline"])["values"]
    ]
    return effects.plot_effects(name, sweep.metrics[0], shown) if shown else None


def placed(page: str, name: str, section: str, writer: str = "logo_jax.sweep") -> str:
    """Returns the page with the section replaced, or appended if it is not in the page.

    Args:
        page: text of the page.
        name: name of the section.
        section: new text of the section.
        writer: module that writes the section, which its first line names.

    >>> print(placed(placed("# Page", "a", "old") + "after", "a", "new"))
    # Page
    <BLANKLINE>
    <!-- a: written by logo_jax.sweep -->
    new
    <!-- a: end -->
    after
    """
    start, end = f"<!-- {name}: written by {writer} -->", f"<!-- {name}: end -->"
    marked = f"{start}\n{section}\n{end}\n"
    pattern = f"{re.escape(start)}.*?{re.escape(end)}\n"
    if re.search(pattern, page, re.DOTALL):
        return re.sub(pattern, lambda _: marked, page, flags=re.DOTALL)
    return f"{page.rstrip()}\n\n{marked}"


def costs(records: Finished) -> str:
    """Returns a sentence with number of runs, hours, machine, versions and commit."""
    hours = sum(record["seconds"] for record in records) / 3600
    facts = [
        f"{len(records)} runs, {hours:.1f} hours in total",
        _each(records, lambda record: _machine(record["machine"])),
        _each(records, lambda record: f"commit {record['commit'] or 'unknown'}"),
    ]
    return f"{'; '.join(facts)}."


def _each(records: Finished, fact: Callable[[Any], str]) -> str:
    """Returns a fact about the runs; all distinct ones if the runs differ."""
    return " and ".join(sorted({fact(record) for record in records}))


def _machine(machine: Mapping[str, Any]) -> str:
    versions = machine["versions"]
    return (
        f"{machine['devices']}, {machine['cores']} cores, "
        f"Python {versions['python']}, jax {versions['jax']}"
    )
