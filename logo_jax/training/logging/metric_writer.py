"""Writes a run's metrics to metrics.jsonl, metrics.csv, TensorBoard and other loggers.

metrics.jsonl is the record from which the library reads; the others are views of it.
Each of its lines is one JSON object with `step` and metrics by flat names such as
`loss` or `knn/k20_t0.07/top1`.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, SupportsFloat

import numpy as np
from etils import epy
from jaxtyping import UInt8

from logo_jax.storage.paths import parse_path
from logo_jax.storage.staged import StagedFolder
from logo_jax.training import atomic

with epy.lazy_imports():  # it imports the libraries of buckets that are installed
    import tensorboardX

METRICS_FILE = "metrics.jsonl"
Row = dict[str, Any]


class Logger(Protocol):
    """Interface of loggers that get metrics and images in addition to the files.

    The files are metrics.jsonl and metrics.csv in the folder of the run.
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs finite numbers by name."""
        ...

    def log_image(
        self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        """Logs an image; images of the same name are a series over steps."""
        ...

    def close(self, failed: bool) -> None:
        """Closes the logger; `failed` says whether the run ended with an error."""
        ...


class TensorBoardLogger:
    """Logger that writes TensorBoard event files to the sub-folder `tensorboard/`.

    Each start of a run writes a new event file. If a run is resumed, the new file tells
    TensorBoard to hide events of steps after `resume_step` in the files of earlier
    starts, because the resumed run logs these steps again.

    Args:
        workdir: folder of the run.
        resume_step: number of updates at which this start resumes the run.
    """

    def __init__(self, workdir: Path, resume_step: int):
        self._file = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=resume_step + 1 if resume_step else 0,
            flush_secs=10,
            # File names have a resolution of one second; the suffix keeps starts apart.
            filename_suffix=f".from{resume_step}",
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs scalars."""
        for name, value in values.items():
            self._file.add_scalar(name, value, step)

    def log_image(
        self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        """Logs an image."""
        self._file.add_image(name, pixels, step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Closes the event file."""
        del failed
        self._file.close()


class MetricWriter:
    """Context manager that writes metrics.jsonl, metrics.csv and to other loggers.

    The files of a resumed run equal those of an uninterrupted run, if it was stopped at
    a step that is logged; otherwise there is also a row of that step, and the next row
    is a mean of fewer steps. When the files are opened, rows after `resume_step` are
    dropped, because they will be measured again, and so is an incomplete last row.
    Therefore all rows up to a step must be written before the checkpoint of that step.

    Numbers that are not finite are null in metrics.jsonl, because strict JSON cannot
    represent them, empty in metrics.csv, and omitted from other loggers.

    Args:
        workdir: folder of the run; created if it does not exist.
        resume_step: number of updates so far; later rows are dropped; 0 drops all rows.
        loggers: loggers in addition to TensorBoard; closed together with the writer.

    Raises:
        ValueError: if a line of metrics.jsonl other than the last one is invalid.
    """

    def __init__(
        self, workdir: str | Path, *, resume_step: int, loggers: Iterable[Logger] = ()
    ):
        workdir = parse_path(workdir)
        rows = _kept(read_rows(workdir / METRICS_FILE), resume_step)
        self._files = StagedFolder(workdir)
        folder = self._files.local
        folder.mkdir(parents=True, exist_ok=True)
        self._jsonl = folder / METRICS_FILE
        self._csv = folder / "metrics.csv"
        atomic.write_text(self._jsonl, "".join(map(_json_line, rows)))
        self._columns = _write_table(self._csv, rows)
        self._loggers = (TensorBoardLogger(folder, resume_step), *loggers)
        self.upload()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self.close(failed=kind is not None)

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Appends one row to each file, which is readable when the call returns.

        In a bucket, it is readable after the next `upload`. Other loggers may be
        delayed, TensorBoard by at most ten seconds.

        Args:
            step: number of updates so far.
            values: numbers by flat name; of any type that float() accepts.
        """
        row: Row = {"step": step}
        row |= {name: _finite_or_none(float(value)) for name, value in values.items()}
        _append(self._jsonl, _json_line(row))
        if row.keys() <= set(self._columns):
            _append(self._csv, _csv_lines(self._columns, [row]))
        else:
            self._columns = _write_table(self._csv, read_rows(self._jsonl))
        finite = {name: row[name] for name in values if row[name] is not None}
        for logger in self._loggers:
            logger.write(step, finite)

    def log_image(
        self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        """Sends an image to each logger; metrics.jsonl and metrics.csv have no images.

        Args:
            step: number of updates so far.
            name: name of the image; images of the same name are a series over steps.
            pixels: RGB pixels, uint8 [h, w, 3].
        """
        for logger in self._loggers:
            logger.log_image(step, name, pixels)

    def rows(self, step: int | None = None) -> list[Row]:
        """Returns the rows of metrics.jsonl, also from earlier processes.

        Args:
            step: the step whose rows are returned; None: all rows.
        """
        rows = read_rows(self._jsonl)
        return [row for row in rows if step is None or row["step"] == step]

    def upload(self) -> None:
        """Uploads the files if the folder is in a bucket; they are also at intervals.

        Raises:
            OSError: if they cannot be written there.
        """
        with atomic.name_in_errors(self._jsonl):
            self._files.upload()

    def close(self, failed: bool = False) -> None:
        """Closes the loggers and files.

        Args:
            failed: whether the run ended with an error.
        """
        for logger in self._loggers:
            logger.close(failed)
        self._files.close()


def by_seed(values: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, float]:
    """Flattens metrics to scalars; an array [n] of n seeds becomes n + 2 scalars.

    `NAME` is the mean, `NAME/std` the sample standard deviation (with divisor n - 1),
    and `NAME/seed_SEED` the value of each seed. `by_each_seed` separates the seeds.

    >>> by_seed({"loss": 2.0}, seeds=[5])
    {'loss': 2.0}
    >>> sorted(by_seed({"loss": np.array([1.0, 3.0])}, seeds=[5, 6]))
    ['loss', 'loss/seed_5', 'loss/seed_6', 'loss/std']
    """
    flat: dict[str, float] = {}
    for name, value in values.items():
        flat[name] = float(np.mean(value))
        if np.ndim(value):
            flat[f"{name}/std"] = float(np.std(value, ddof=1))
            each = zip(seeds, value, strict=True)
            flat |= {f"{name}/seed_{seed}": float(x) for seed, x in each}
    return flat


def by_each_seed(row: Mapping[str, float], seeds: Sequence[int]) -> list[dict]:
    """Splits a row into one row per seed; with one seed, the row itself.

    >>> by_each_seed({"step": 9, "loss": 2.0, "loss/seed_4": 1.0}, seeds=[4, 5])
    [{'step': 9, 'loss': 1.0}, {'step': 9}]
    """
    if len(seeds) == 1:
        return [dict(row)]
    return [
        {"step": row["step"]}
        | {name.removesuffix(end): x for name, x in row.items() if name.endswith(end)}
        for end in (f"/seed_{seed}" for seed in seeds)
    ]


def is_knn(name: str) -> bool:
    """Whether a metric is a kNN accuracy, for any encoder, layer and setting.

    >>> [is_knn(f"{x}/k20_t0.07/top1") for x in ("knn", "ema/knn_projector", "linear")]
    [True, True, False]
    """
    return name.removeprefix("ema/").startswith(("knn/", "knn_"))


def is_evaluation(row: Iterable[str]) -> bool:
    """Whether the metric names of a row are of an evaluation, not of training steps."""
    return any(map(is_knn, row))


def best_row(rows: Iterable[Row], name: str, steps: Iterable[int]) -> Row | None:
    """Returns the row with the highest value of a metric, among some steps.

    Args:
        rows: rows of metrics.jsonl.
        name: name of the metric.
        steps: the steps, such as those that have a checkpoint.

    Returns:
        The row, the earliest of those with the same value; None if no row of the steps
        has a finite value.

    >>> best_row([{"step": 2, "a": None}, {"step": 4, "a": 1.5}], "a", [2, 4])
    {'step': 4, 'a': 1.5}
    """
    among = set(steps)
    measured = (x for x in rows if x["step"] in among and x.get(name) is not None)
    return max(measured, key=lambda row: row[name], default=None)


def read_rows(path: Path) -> list[Row]:
    """Reads the rows of a metrics.jsonl, without an incomplete last line."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    return [_parsed(line, f"{path} line {i}") for i, line in enumerate(lines, 1)]


def _parsed(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
        return {"step": row["step"], **row}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{where} must be a JSON object with a step; repair or remove the line"
        ) from error


def _kept(rows: Iterable[Row], resume_step: int) -> list[Row]:
    return [row for row in rows if resume_step and row["step"] <= resume_step]


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json_line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _write_table(path: Path, rows: list[Row]) -> list[str]:
    """Writes rows to a CSV file with the union of their columns; returns these."""
    columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
    header = dict(zip(columns, columns, strict=True))
    atomic.write_text(path, _csv_lines(columns, [header, *rows]))
    return columns


def _csv_lines(columns: list[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _append(path: Path, line: str) -> None:
    with (
        atomic.name_in_errors(path),
        path.open("a", encoding="utf-8", newline="") as file,
    ):
        file.write(line)
