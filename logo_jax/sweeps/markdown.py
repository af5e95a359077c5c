"""Writes the results of a sweep into a section of a Markdown page."""

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from logo_jax.sweeps import table
from logo_jax.sweeps.spec import Sweep
from logo_jax.training import atomic
from logo_jax.visualization import effects
from logo_jax.visualization.effects import Difference

Finished = Sequence[Mapping[str, Any]]  # records of runs, as the sweep writes them


def write(
    page: pathlib.Path,
    name: str,
    sweep: Sweep,
    records: table.Records,
    command: str,
) -> None:
    """Writes the results of finished runs into a page, and their figure to figures/.

    The folder figures/ is in the folder of the page.

    Args:
        page: an existing Markdown file.
        name: name of the section and of the figure.
        sweep: the sweep, with its cells.
        records: records of the finished runs, by cell and seed.
        command: command that trained the runs.

    Raises:
        ValueError: if no run is finished.
        FileNotFoundError: if the page does not exist.
    """
    if not records:
        raise ValueError(f"no run of {name} is finished, so there are no results yet")
    old = page.read_text()
    rows = table.rows(sweep, records)
    figure = _write_figure(page, name, sweep, rows)
    tables = [table.markdown(sweep, rows)]
    if sweep.claims:
        tables.append(table.claims(sweep, records))
    found = text(tables, list(records.values()), command, figure)
    atomic.write_text(page, placed(old, name, found))


def _write_figure(
    page: pathlib.Path, name: str, sweep: Sweep, rows: Sequence[Mapping[str, Any]]
) -> str:
    """Writes the figure and returns its path relative to the page; "" if there is none.

    There is no figure if no difference between two cells is known.
    """
    shown = [
        Difference(row["cell"], row["baseline"], own["values"], own["margin"])
        for row in rows
        if (own := row["over_baseline"])["values"]
    ]
    if not shown:
        return ""
    file = pathlib.Path("figures", f"{name}.png")
    (page.parent / file).parent.mkdir(exist_ok=True)
    drawn = effects.plot_effects(name, sweep.metrics[0], shown)
    (page.parent / file).write_bytes(drawn.png)
    return file.as_posix()


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


def text(
    tables: Sequence[str], records: Finished, command: str, figure: str = ""
) -> str:
    """Returns the text of a section.

    It has the first table, the costs and the machine, the figure, the other tables and
    the command.

    Args:
        tables: tables as Markdown; at least one.
        records: records of the finished runs; at least one.
        command: command that trained the runs.
        figure: path of the figure relative to the page; "": no figure.
    """
    parts = [tables[0], costs(records)]
    if figure:
        parts.append(f"![Paired differences]({figure})")
    return "\n\n".join([*parts, *tables[1:], f"    {command}"])


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
