"""Reads tables of strings: CSV, TSV and text files, JSON Lines and Parquet."""

import csv
import gzip
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from logo_jax.data.decode import readable_suffixes
from logo_jax.data.sources import arrow
from logo_jax.data.sources.arrow import pa, pc
from logo_jax.data.sources.columns import (
    FIELD,
    ONE_OF,
    find_columns,
    has_known_name,
)

_TEXT = (".csv", ".tsv", ".txt")
_JSON = (".jsonl", ".ndjson")
SUFFIXES = (*_TEXT, *_JSON, ".parquet")
_MISSING = ["", "NA", "NaN", "nan", "null", "NULL"]  # as pandas writes them
_DELIMITERS = "\t;,|"
_HEAD = 2**16  # bytes in which the form of a file is found


class Table(NamedTuple):
    """Columns of a table, as Arrow arrays of large_string; nulls are missing values.

    Attributes:
        columns: the columns "image", "label" and "split", as far as they exist.
        names: the names of these columns in the file; empty if it has no names.
        others: the names of further columns, as far as they are known.
    """

    columns: dict[str, Any]
    names: dict[str, str]
    others: tuple[str, ...] = ()


def is_table(path: Path) -> bool:
    """Whether a path is that of a table, by its suffix."""
    return _suffix(path) in SUFFIXES


def has_images(file: Path, given: Mapping[str, str]) -> bool:
    """Whether a text file or a file of JSON Lines has a known column of images."""
    try:
        _, _, lines = _head(file)
        if _suffix(file) in _JSON:
            names = list(json.loads(lines[0]))
        else:
            names = _cells(lines[0], _delimiter(file, lines))
        return has_known_name(names, given) and bool(
            find_columns(names, given, str(file))
        )
    except ValueError:
        return False


def read_table(
    file: Path,
    given: Mapping[str, str],
    *,
    header: Sequence[str] = (),
    delimiter: str = "",
) -> Table:
    """Reads the columns of images, labels and splits.

    Args:
        file: a file with one of SUFFIXES; text files may be compressed (.gz).
        given: names of columns that are to be used, as of `parse_columns`.
        header: names of the columns of a text file without a header.
        delimiter: delimiter of the columns of a text file; "" to find it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file has another format or cannot be read, or there is no
            column of images.
    """
    suffix = _suffix(file)
    if suffix not in SUFFIXES:
        raise ValueError(f"{file} must be a table, with a suffix {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; give the path of a table")
    try:
        if suffix in _JSON:
            table = _of_arrow(arrow.json.read_json(file), given, file)
        elif suffix == ".parquet":
            table = _of_parquet(file, given)
        else:
            table = _read_text(file, given, header, delimiter)
        return _with_one_label(table, file)
    except (
        *(pa.ArrowException, UnicodeError, EOFError, csv.Error),
        *(zlib.error, gzip.BadGzipFile),
    ) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read ({reason}); repair it") from error


def _with_one_label(table: Table, file: Path) -> Table:
    """Returns the table with a column of labels in the place of several of 0 and 1."""
    kinds = [kind for kind in table.columns if kind.startswith(ONE_OF)]
    if not kinds:
        return table
    columns, names = dict(table.columns), dict(table.names)
    classes = [kind.removeprefix(ONE_OF) for kind in kinds]
    values = [pc.cast(columns.pop(kind), pa.float64()) for kind in kinds]
    chosen = np.stack([pc.fill_null(x, 0).to_numpy() for x in values], axis=1)
    wrong = np.flatnonzero((np.sort(chosen) != np.eye(len(kinds))[-1]).any(1))
    if len(wrong):
        values = ", ".join(f"{x:g}" for x in chosen[wrong[0]])
        raise ValueError(
            f"{file}: image {wrong[0] + 1} has {values} in the columns "
            f"{', '.join(classes)}, of which one must be 1 and the others 0; repair or "
            f"remove it, and all {len(wrong):,} such rows"
        )
    labels = pa.array(classes, pa.large_string()).take(pa.array(chosen.argmax(1)))
    for kind in kinds:
        names.pop(kind, None)
    named = {"label": "+".join(classes)} if names else {}
    return Table(columns | {"label": labels}, names | named, table.others)


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return os.path.splitext(name)[1]


def _of_parquet(file: Path, given: Mapping[str, str]) -> Table:
    schema = arrow.parquet.read_schema(file)
    found = find_columns(schema.names, given, str(file))
    wanted = [schema.names[i] for i in found.values()]
    if pa.types.is_struct(schema.field(found["image"]).type):
        raise ValueError(
            f"{file} has images, not their paths; use --config.data.source=huggingface "
            f"--config.data.path={file.parent}"
        )
    table = _of_arrow(arrow.parquet.read_table(file, columns=wanted), given, file)
    return table._replace(others=_others(schema.names, table.names))


def _of_arrow(table: "pa.Table", given: Mapping[str, str], file: Path) -> Table:
    found = find_columns(table.column_names, given, str(file))
    columns = {}
    for kind, i in found.items():
        name, column = table.column_names[i], table.column(i)
        if pa.types.is_nested(column.type):
            raise ValueError(
                f"{file}: the column {name!r} must have one value a row, but has "
                f"{column.type}; use another with {FIELD}={kind}=NAME"
            )
        columns[kind] = _strings(column)
    names = {kind: table.column_names[i] for kind, i in found.items()}
    return Table(columns, names, _others(table.column_names, names))


def _others(names: Sequence[str], used: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in used.values())


def _strings(column: "pa.ChunkedArray") -> Any:
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    strings = pc.utf8_trim_whitespace(pc.cast(column, pa.large_string()))
    whole = strings.combine_chunks()
    whole = pa.concat_arrays(whole.chunks) if hasattr(whole, "chunks") else whole
    missing = pc.is_in(whole, value_set=pa.array(_MISSING, pa.large_string()))
    return pc.if_else(missing, pa.scalar(None, pa.large_string()), whole)


def _read_text(
    file: Path, given: Mapping[str, str], header: Sequence[str], delimiter: str
) -> Table:
    encoding, blank, lines = _head(file)
    delimiter = delimiter or _delimiter(file, lines)
    first = _cells(lines[0], delimiter)
    is_header = not header and has_known_name(first, given)
    names = header or (first if is_header else _unnamed(file, first))
    found = find_columns(names, given, str(file))
    keys = [str(i) for i in range(len(names))]
    table = arrow.csv.read_csv(
        file,
        arrow.csv.ReadOptions(
            column_names=keys, skip_rows=blank + is_header, encoding=encoding
        ),
        arrow.csv.ParseOptions(delimiter=delimiter),
        arrow.csv.ConvertOptions(
            column_types=dict.fromkeys(keys, pa.string()),
            include_columns=[keys[i] for i in found.values()],
            strings_can_be_null=False,
        ),
    )
    if not len(table):
        raise ValueError(f"{file} lists no image; write one a line")
    columns = {kind: _strings(table.column(keys[i])) for kind, i in found.items()}
    if header or not is_header:
        return Table(columns, {})
    used = {kind: names[i] for kind, i in found.items()}
    return Table(columns, used, _others(names, used))


def _head(file: Path) -> tuple[str, int, list[str]]:
    """Returns the encoding, the number of blank lines, and the lines after them."""
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    with opened(file, "rb") as stream:
        start = stream.read(_HEAD)
    encoding = "utf16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf8"
    text = start.decode("utf-16" if encoding == "utf16" else "utf-8-sig", "replace")
    lines = text.splitlines()
    if len(start) == _HEAD:
        del lines[-1:]  # not read whole
    full = [line for line in lines if line.strip()]
    if not full:
        raise ValueError(f"{file} lists no image; write one a line")
    return encoding, lines.index(full[0]), full


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _delimiter(file: Path, lines: Sequence[str]) -> str:
    """Returns the delimiter that divides all lines into the same number of cells."""
    if _suffix(file) == ".tsv":
        return "\t"
    looked_at = lines[:100]
    for delimiter in _DELIMITERS:
        counts = {len(_cells(line, delimiter)) for line in looked_at}
        if len(counts) == 1 and counts != {1}:
            return delimiter
    spaces = {len(_cells(line, " ")) for line in looked_at}
    if len(spaces) == 1 and spaces != {1} and not _is_image(lines[0]):
        return " "
    return ","


def _unnamed(file: Path, cells: Sequence[str]) -> list[str]:
    """Returns names for the columns of a file without a header, if they are clear."""
    images = [i for i, cell in enumerate(cells) if _is_image(cell)]
    if len(images) != 1 or len(cells) > 2:
        if len(cells) == 1 and not images:
            return ["image"]  # paths without suffixes
        raise ValueError(
            f"{file} must have a header with names of columns such as path, label, "
            f"split; its first line has {', '.join(map(repr, cells))}; "
            f"if these are names, use e.g. --{FIELD}=image={cells[0]}"
        )
    names = ["label"] * len(cells)
    names[images[0]] = "image"
    return names


def _is_image(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in readable_suffixes()
