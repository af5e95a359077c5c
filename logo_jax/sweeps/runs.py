"""The runs of a sweep: their folders, their command lines, what is recorded of them."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logo_jax.sweeps.spec import Setting, Sweep
from logo_jax.training import atomic
from logo_jax.training.logging.metric_writer import METRICS_FILE, read_rows


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
        cell: of the sweep.
        seed: of the run.
        out: the sweep's folder.
        flags: of every run.
    """

    cell: Setting
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
                atomic.write_text(self._seconds_file, f"{seconds:.1f}\n")

    @property
    def _seconds_file(self) -> pathlib.Path:
        return self.folder / "sweep_seconds"


def make_runs(sweep: Sweep, out: pathlib.Path, flags: Sequence[str]) -> list[Run]:
    """All runs, seed by seed: all cells have one before any has two.

    Raises:
        ValueError: where a flag says the seed, which is the sweep's to say.
    """
    for flag in flags:
        if _field(flag) in ("--config.seed", "--config.seeds"):
            raise ValueError(
                f"{flag} would give every run the same seeds; say --seeds=N, or the "
                "sweep's own seeds"
            )
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
    """The run's last values of the metrics; None where one is missing or not finite."""
    lines = read_rows(run.folder / METRICS_FILE)
    found = {name: row[name] for row in lines for name in metrics if name in row}
    return found if _complete(found, metrics) else None


def records_of(
    runs: Sequence[Run], metrics: Sequence[str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """What is recorded of the runs that are finished, by cell and seed.

    Raises:
        ValueError: where one has been recorded without one of the metrics.
    """
    records = {}
    for run in runs:
        if run.record.exists():
            record = json.loads(run.record.read_text())
            if not _complete(record["metrics"], metrics):
                raise ValueError(
                    f"{run.record} must have all of {', '.join(metrics)}; remove that "
                    "file, and the sweep reads them from the run's own"
                )
            records[run.cell.name, run.seed] = record
    return records


def _complete(found: Mapping[str, float | None], metrics: Sequence[str]) -> bool:
    return all(found.get(name) is not None for name in metrics)


def _field(flag: str) -> str:
    return flag.partition("=")[0]
