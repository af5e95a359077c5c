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
    """Shows the numbers of a run, and pictures beside them."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes numbers by name, all finite."""
        ...

    def show(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Takes the picture of a series at a step."""
        ...

    def close(self, failed: bool) -> None:
        """Ends, well or with an error."""
        ...


class TensorBoardLogger:
    """Files in `tensorboard/`; what will be measured again is dropped by its readers.

    Args:
        workdir: the run's folder.
        resume_step: updates done so far.
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
        """Adds a point to the curve of each name."""
        for name, value in values.items():
            self._file.add_scalar(name, value, step)

    def show(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds an image."""
        self._file.add_image(name, pixels, step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Finishes the file."""
        del failed
        self._file.close()


class MetricWriter:
    """The metrics of one run, in a form for each reader; a context manager.

    A run that resumes goes on as if it had never stopped: what it will measure again
    is dropped when the files are opened, and so is a line torn by a kill. So write what
    was measured up to a step before saving that step's checkpoint.

    Numbers that are not finite are null in metrics.jsonl, because strict JSON has no
    word for them, empty in metrics.csv, and left out of boards.

    Args:
        workdir: the run's folder; made if absent.
        resume_step: updates done so far; later lines are dropped, and 0 drops all.
        boards: that show the same numbers, beside TensorBoard; closed with the writer.

    Raises:
        ValueError: if metrics.jsonl has a broken line before its last.
    """

    def __init__(
        self, workdir: str | Path, *, resume_step: int, boards: Iterable[Logger] = ()
    ):
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self._jsonl = workdir / METRICS_FILE
        self._csv = workdir / "metrics.csv"
        rows = _kept(read_rows(self._jsonl), resume_step)
        atomic.write_text(self._jsonl, "".join(map(_json_line, rows)))
        self._columns = _write_table(self._csv, rows)
        self._boards = (TensorBoardLogger(workdir, resume_step), *boards)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self.close(failed=kind is not None)

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Adds one line to each file; it is there for every reader on return.

        Boards alone may lag; TensorBoard by ten seconds at most.

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
        for board in self._boards:
            board.write(step, finite)

    def show(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Hangs a picture on each board; there is none in the record.

        Args:
            step: updates done so far.
            name: of the picture; those of one name are a series.
            pixels: red, green, blue.
        """
        for board in self._boards:
            board.show(step, name, pixels)

    def rows(self, step: int) -> list[Row]:
        """The lines of a step in metrics.jsonl, those of an earlier process too."""
        return [row for row in read_rows(self._jsonl) if row["step"] == step]

    def close(self, failed: bool = False) -> None:
        """Closes the boards.

        Args:
            failed: whether an error ends the run.
        """
        for board in self._boards:
            board.close(failed)


def by_seed(values: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, float]:
    """Values of one seed as they are; of several [n], mean, spread and each.

    The spread, `NAME/std`, is the standard deviation of a sample (n - 1); a seed's own
    value is `NAME/seed_SEED`.

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
