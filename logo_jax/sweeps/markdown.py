"""What a sweep found, as a part of a page that people write around."""

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
    """Puts what is finished into the page, and its figure into figures/ beside it.

    Args:
        page: a Markdown file that is there.
        name: of the section and of the figure.
        sweep: the cells.
        records: of the finished runs, by cell and seed.
        command: that made them.

    Raises:
        ValueError: where nothing is finished.
        FileNotFoundError: where there is no such page.
    """
    if not records:
        raise ValueError(f"no run of {name} is finished: there is nothing to tell yet")
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
    """The picture's path from the page; "" where no difference is known."""
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


def placed(page: str, name: str, section: str) -> str:
    """The page with the section of that name: in its old place, else at the end.

    >>> print(placed(placed("# Page", "a", "old") + "after", "a", "new"))
    # Page
    <BLANKLINE>
    <!-- a: written by logo_jax.sweep -->
    new
    <!-- a: end -->
    after
    """
    start, end = f"<!-- {name}: written by logo_jax.sweep -->", f"<!-- {name}: end -->"
    marked = f"{start}\n{section}\n{end}\n"
    pattern = f"{re.escape(start)}.*?{re.escape(end)}\n"
    if re.search(pattern, page, re.DOTALL):
        return re.sub(pattern, lambda _: marked, page, flags=re.DOTALL)
    return f"{page.rstrip()}\n\n{marked}"


def text(
    tables: Sequence[str], records: Finished, command: str, figure: str = ""
) -> str:
    """The first table, what it cost and on what, the figure, other tables, the command.

    Args:
        tables: as Markdown, one at least.
        records: of the finished runs, at least one.
        command: that made them.
        figure: path of a picture from the page; "": none.
    """
    parts = [tables[0], costs(records)]
    if figure:
        parts.append(f"![Paired differences]({figure})")
    return "\n\n".join([*parts, *tables[1:], f"    {command}"])


def costs(records: Finished) -> str:
    """How many runs, their hours, machine, versions and commit."""
    hours = sum(record["seconds"] for record in records) / 3600
    facts = [
        f"{len(records)} runs, {hours:.1f} hours in all",
        _each(records, lambda record: _machine(record["machine"])),
        _each(records, lambda record: f"commit {record['commit'] or 'unknown'}"),
    ]
    return f"{'; '.join(facts)}."


def _each(records: Finished, fact: Callable[[Any], str]) -> str:
    """A fact of the runs; each that there is, where they differ."""
    return " and ".join(sorted({fact(record) for record in records}))


def _machine(machine: Mapping[str, Any]) -> str:
    versions = machine["versions"]
    return (
        f"{machine['devices']}, {machine['cores']} cores, "
        f"Python {versions['python']}, jax {versions['jax']}"
    )
