"""Writes a run's metrics: metrics.jsonl, metrics.csv, TensorBoard and other loggers.

metrics.jsonl is the record and the others are views of it: one object a line, `step`
and then flat names such as `loss` or `knn/k20_t0.07/top1`.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, SupportsFloat

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

from logo_jax.training import atomic

METRICS_FILE = "metrics.jsonl"
Row = dict[str, Any]


class Logger(Protocol):
    """Another place that gets the metrics and figures of a run."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers by name, all finite."""
        ...

    def log_image(
        self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        """Logs an image at a step of the series of that name."""
        ...

    def close(self, failed: bool) -> None:
        """Ends; `failed`: by an error."""
        ...


class TensorBoardLogger:
    """Writes event files to `tensorboard/`.

    Args:
        workdir: the run's folder.
        resume_step: updates done so far; TensorBoard drops later events of old files.
    """

    def __init__(self, workdir: Path, resume_step: int):
        self._file = SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=resume_step + 1 if resume_step else 0,
            flush_secs=10,
            # Files are named by the second: two quick starts must not share one.
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
    """Writes metrics.jsonl, metrics.csv and to other loggers; a context manager.

    Files of a resumed run equal those of an uninterrupted one: rows that will be
    measured again are dropped when the files are opened, and so is a row torn by a
    kill. So the rows up to a step must be written before that step's checkpoint.

    Numbers that are not finite are null in metrics.jsonl, because strict JSON has no
    word for them, empty in metrics.csv, and left out of other loggers.

    Args:
        workdir: the run's folder; made if absent.
        resume_step: updates done so far; later rows are dropped, and 0 drops all.
        loggers: get the same metrics, beside TensorBoard; closed with the writer.

    Raises:
        ValueError: if metrics.jsonl has a broken line before its last.
    """

    def __init__(
        self, workdir: str | Path, *, resume_step: int, loggers: Iterable[Logger] = ()
    ):
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self._jsonl = workdir / METRICS_FILE
        self._csv = workdir / "metrics.csv"
        rows = _kept(read_rows(self._jsonl), resume_step)
        atomic.write_text(self._jsonl, "".join(map(_json_line, rows)))
        self._columns = _write_table(self._csv, rows)
        self._loggers = (TensorBoardLogger(workdir, resume_step), *loggers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self.close(failed=kind is not None)

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Adds one row to each file; readers see it on return.

        Other loggers may lag; TensorBoard by ten seconds at most.

        Args:
            step: updates done so far.
            values: numbers by flat name; anything that float() takes.
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
        """Sends an image to each logger; the files hold none.

        Args:
            step: updates done so far.
            name: of the image; images of one name are a series.
            pixels: red, green, blue.
        """
        for logger in self._loggers:
            logger.log_image(step, name, pixels)

    def rows(self, step: int) -> list[Row]:
        """The rows of a step in metrics.jsonl, also those of an earlier process."""
        return [row for row in read_rows(self._jsonl) if row["step"] == step]

    def close(self, failed: bool = False) -> None:
        """Closes the loggers.

        Args:
            failed: whether an error ends the run.
        """
        for logger in self._loggers:
            logger.close(failed)


def by_seed(values: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, float]:
    """Scalars by flat name. An array [n], of n seeds, becomes n + 2 scalars.

    `NAME` is the mean, `NAME/std` the sample standard deviation (n - 1), and
    `NAME/seed_SEED` the value of each seed. `by_each_seed` separates them again.

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
    """The row as each seed alone would have it; of one seed the row itself.

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
    """Whether a metric is a kNN accuracy, of any layer and setting.

    >>> [is_knn(f"{x}/k20_t0.07/top1") for x in ("knn", "knn_projector", "linear")]
    [True, True, False]
    """
    return name.startswith(("knn/", "knn_"))


def is_evaluation(row: Iterable[str]) -> bool:
    """Whether a row is of an evaluation, and not of training steps, by its names."""
    return any(map(is_knn, row))


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl; a last line that was never finished is left out."""
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
            f"{where} must be a JSON object with a step, and is not; "
            "repair or remove that line"
        ) from error


def _kept(rows: Iterable[Row], resume_step: int) -> list[Row]:
    return [row for row in rows if resume_step and row["step"] <= resume_step]


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json_line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _write_table(path: Path, rows: list[Row]) -> list[str]:
    """Writes rows as a CSV file with the union of their columns, and returns those."""
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
