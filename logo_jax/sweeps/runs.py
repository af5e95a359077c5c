"""The runs of a sweep: their folders, command lines and records."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logo_jax import configs
from logo_jax.configs.base import MAY_CHANGE
from logo_jax.experiment import make_spec
from logo_jax.sweeps.spec import Setting, Sweep
from logo_jax.training import atomic
from logo_jax.training.logging.metric_writer import METRICS_FILE, read_rows


@dataclass(frozen=True)
class Run:
    """A run of one cell with one seed.

    Attributes:
        cell: cell of the sweep.
        seed: seed of the run.
        out: folder of the sweep.
        flags: flags that are added to the command line of every run.
    """

    cell: Setting
    seed: int
    out: pathlib.Path
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.cell.name}_seed_{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """Arguments that identify the run: its command line without the folder."""
        given = {_field(flag) for flag in self.flags}
        own = self.cell.flags(self.seed)
        return [*(flag for flag in own if _field(flag) not in given), *self.flags]

    @property
    def config(self) -> dict[str, Any]:
        """The config of the run as nested mappings.

        Raises:
            FileNotFoundError: if the cell's config does not exist.
            ValueError: if a field is unknown or wrong.
        """
        values = (flag.split("=", 1) for flag in self.arguments[1:])
        fields = {name.removeprefix("--config."): value for name, value in values}
        return configs.load(self.cell.config, fields).to_dict()

    @property
    def folder(self) -> pathlib.Path:
        """Work folder of the run."""
        return self.out / self.name

    @property
    def record(self) -> pathlib.Path:
        """JSON file with arguments, metrics and time, written when the run finishes."""
        return self.out / f"{self.name}.json"

    @property
    def claim(self) -> pathlib.Path:
        """Folder that a sweep process locks while it trains this run."""
        return self.out / "claims" / self.name

    @property
    def log(self) -> pathlib.Path:
        """Text file with what the training process of this run prints."""
        return self.out / f"{self.name}.log"

    @property
    def seconds(self) -> float:
        """Total seconds of all starts in this folder.

        A start is not counted if its sweep process was killed.
        """
        file = self._seconds_file
        return float(file.read_text()) if file.exists() else 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Context manager that adds the time of a start to that of earlier starts."""
        begin = time.monotonic()
        try:
            yield
        finally:
            if self.folder.is_dir():  # the run has started
                seconds = self.seconds + time.monotonic() - begin
                atomic.write_text(self._seconds_file, f"{seconds:.1f}\n")

    @property
    def _seconds_file(self) -> pathlib.Path:
        return self.folder / "sweep_seconds"


def make_runs(sweep: Sweep, out: pathlib.Path, flags: Sequence[str]) -> list[Run]:
    """Returns all runs, ordered by seed and then by cell.

    Raises:
        ValueError: if a flag sets the seed, which the sweep must set.
    """
    for flag in flags:
        if _field(flag) in ("--config.seed", "--config.seeds"):
            raise ValueError(
                f"{flag} would give every run the same seeds; use --seeds=N, or set "
                "seeds in the sweep file"
            )
    return [
        Run(cell, seed, out, tuple(flags))
        for seed in sweep.seeds
        for cell in sweep.cells
    ]


def check_configs(runs: Sequence[Run]) -> None:
    """Raises an error about the first run whose config is wrong; uses no device.

    Raises:
        ValueError: if a config does not exist, or a field is unknown or wrong.
    """
    for run in runs:
        try:
            make_spec(run.config, num_devices=1)
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"{run.name}: {error}; nothing was started") from error


def missing_of(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs that have not finished.

    Raises:
        ValueError: if a run has finished with different settings.
    """
    require_same_settings(runs)
    return [run for run in runs if not run.record.exists()]


def require_same_settings(runs: Sequence[Run]) -> None:
    """Raises an error if a run has finished with different settings."""
    for run in runs:
        changed = run.record.exists() and changes(run)
        if changed:
            raise ValueError(
                f"{run.name} has finished with other settings ({' '.join(changed)}); "
                "use those settings, --table without --results, or another --out"
            )


def changes(run: Run) -> list[str]:
    """Arguments that are only in the record of the finished run, or only in `run`.

    Fields that change nothing that is learned are not compared.
    """
    before = json.loads(run.record.read_text())["arguments"]
    free = {f"--config.{name}" for name in MAY_CHANGE}
    differing = set(before) ^ set(run.arguments)
    return sorted(flag for flag in differing if _field(flag) not in free)


def reached_by(run: Run, metrics: Sequence[str]) -> dict[str, float] | None:
    """Returns the last value of each metric in the run's metrics.jsonl, by name.

    The result is None if a metric is missing or not finite.
    """
    lines = read_rows(run.folder / METRICS_FILE)
    found = {name: row[name] for row in lines for name in metrics if name in row}
    return found if _complete(found, metrics) else None


def curves_of(run: Run, metrics: Sequence[str]) -> dict[str, list[list[float]]]:
    """Returns all [step, value] of each metric in the run's metrics.jsonl, by name."""
    lines = read_rows(run.folder / METRICS_FILE)
    return {
        name: [[row["step"], row[name]] for row in lines if name in row]
        for name in metrics
    }


def records_of(
    runs: Sequence[Run], metrics: Sequence[str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns the records of the finished runs, by cell and seed.

    Raises:
        ValueError: if a record lacks one of the metrics.
    """
    records = {}
    for run in runs:
        if run.record.exists():
            record = json.loads(run.record.read_text())
            if not _complete(record["metrics"], metrics):
                raise ValueError(
                    f"{run.record} must have all of {', '.join(metrics)}; remove that "
                    "file, and the sweep will read them from the run's metrics.jsonl"
                )
            records[run.cell.name, run.seed] = record
    return records


def _complete(found: Mapping[str, float | None], metrics: Sequence[str]) -> bool:
    return all(found.get(name) is not None for name in metrics)


def _field(flag: str) -> str:
    return flag.partition("=")[0]
