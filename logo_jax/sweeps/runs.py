"""The runs of a sweep: their folders, their command lines, what is recorded of them."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from logo_jax.metrics import METRICS_FILE, read_rows, write_whole
from logo_jax.sweeps.description import Cell, Sweep


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
        cell: of the sweep.
        seed: of the run.
        out: the sweep's folder.
        flags: of every run.
    """

    cell: Cell
    seed: int
    out: pathlib.Path
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.cell.name}_seed_{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """What makes it this run: its command line, but for the folder."""
        given = {_field(flag) for flag in self.flags}
        own = self.cell.flags(self.seed)
        # a tuple given twice would be joined
        return [*(flag for flag in own if _field(flag) not in given), *self.flags]

    @property
    def folder(self) -> pathlib.Path:
        """Of the run."""
        return self.out / self.name

    @property
    def record(self) -> pathlib.Path:
        """The file that is there once the run is finished."""
        return self.out / f"{self.name}.json"

    @property
    def claim(self) -> pathlib.Path:
        """The folder that is locked by the sweep that trains it."""
        return self.out / "claims" / self.name

    @property
    def log(self) -> pathlib.Path:
        """What it printed."""
        return self.out / f"{self.name}.log"

    @property
    def seconds(self) -> float:
        """Of all its starts in this folder, but for one whose sweep was killed."""
        file = self._seconds_file
        return float(file.read_text()) if file.exists() else 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the time of a start to that of those before it."""
        begin = time.monotonic()
        try:
            yield
        finally:
            if self.folder.is_dir():  # it began
                seconds = self.seconds + time.monotonic() - begin
                write_whole(self._seconds_file, f"{seconds:.1f}\n")

    @property
    def _seconds_file(self) -> pathlib.Path:
        return self.folder / "sweep_seconds"


def make_runs(sweep: Sweep, out: pathlib.Path, flags: Sequence[str]) -> list[Run]:
    """All runs, seed by seed: all cells have one before any has two.

    Raises:
        ValueError: where a flag is none of a config's fields.
    """
    for flag in flags:
        if not flag.startswith("--config."):
            raise ValueError(f"{flag!r} is not a flag; see --help, configs/base.py")
    return [
        Run(cell, seed, out, tuple(flags))
        for seed in sweep.seeds
        for cell in sweep.cells
    ]


def missing_of(runs: Sequence[Run]) -> list[Run]:
    """Runs that have not finished.

    Raises:
        ValueError: where one has finished with other settings than these.
    """
    for run in runs:
        changed = run.record.exists() and changes(run)
        if changed:
            raise ValueError(
                f"{run.name} has finished with other settings ({' '.join(changed)}); "
                "give those, --table, or another --out"
            )
    return [run for run in runs if not run.record.exists()]


def changes(run: Run) -> list[str]:
    """Arguments that only the finished run has, or only this one."""
    before = json.loads(run.record.read_text())["arguments"]
    return sorted(set(before) ^ set(run.arguments))


def reached_by(run: Run, metrics: Sequence[str]) -> dict[str, float] | None:
    """The run's last values of the metrics; None where it has not all of them."""
    lines = read_rows(run.folder / METRICS_FILE)
    found = {name: row[name] for row in lines for name in metrics if name in row}
    return found if len(found) == len(metrics) else None


def records_of(runs: Sequence[Run]) -> dict[tuple[str, int], dict[str, Any]]:
    """What is recorded of the runs that are finished, by cell and seed."""
    return {
        (run.cell.name, run.seed): json.loads(run.record.read_text())
        for run in runs
        if run.record.exists()
    }


def _field(flag: str) -> str:
    return flag.partition("=")[0]
