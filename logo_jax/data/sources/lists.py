"""Images that a list names, with optional labels and splits.

A list is a table (`tables.py`) with one row per image. Its columns are found by usual
names (`columns.py`). Paths start from the folder of the list, or from another folder.
A path that does not exist is completed if exactly one file fits: by the suffix of an
image, or by a sub-folder, first that of the row's split. All files are known to exist
before training begins.

Classes are the distinct labels in sorted order, numbers by their value. A row without a
label is unlabeled, and so is one with a negative number. Repeated rows count once.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from logo_jax.data.decode import readable_suffixes
from logo_jax.data.sources.arrow import pa, pc
from logo_jax.data.sources.base import DEFAULT_DECODING, NO_LABEL, Decoding
from logo_jax.data.sources.columns import FIELD
from logo_jax.data.sources.folder import (
    SPLIT_NAMES,
    FolderSource,
    FolderSplits,
    existing_folder,
    find_splits,
    not_used,
    sub_folders,
)
from logo_jax.data.sources.names import Names
from logo_jax.data.sources.parts import choose_splits, join, ordered
from logo_jax.data.sources.tables import Table, read_table

_UNIQUE = 0.9  # a label that more of the rows have for themselves is no class
_SEVERAL = b""  # several files fit a path
SplitFiles = dict[str, FolderSource]
_SPLITS = tuple(SPLIT_NAMES)


def load_lists(
    files: Sequence[Path],
    *,
    path: str | Path = "",
    columns: Mapping[str, str] | None = None,
    decoding: Decoding = DEFAULT_DECODING,
) -> FolderSplits:
    """Returns the training images of lists and their labeled images for queries.

    Of several lists, one without a column of splits has the split in its name, such as
    `val_labels.csv`, or else it is for training.

    Args:
        files: the lists.
        path: folder from which paths start; "" for that of each list.
        columns: names of columns that are to be used, as of `parse_columns`.
        decoding: how the files are decoded.

    Raises:
        FileNotFoundError: if a list, or a file that it names, does not exist.
        ValueError: if a list cannot be read, has no training images, gives a file two
            labels or two splits, or names a file that is not unique.
    """
    parts: dict[str, list[FolderSource]] = {split: [] for split in SPLIT_NAMES}
    for file in files:
        split = split_of_name(file) if len(files) > 1 else "train"
        table = read_table(file, columns or {})
        root = existing_folder(path) if path else file.parent
        found = files_of(table, file, root, split, decoding)
        for name, images in found.items():
            parts[name].append(images)
    if not parts["train"]:
        found = [split for split, images in parts.items() if images]
        raise ValueError(
            f"{' and '.join(map(str, files))}: no row has the split train, but "
            f"{' and '.join(found) or 'others'}; add some, or use "
            f"--{FIELD}=split= to train on all rows"
        )
    _require_distinct(parts)
    return choose_splits(parts)


def _require_distinct(parts: Mapping[str, Sequence[FolderSource]]) -> None:
    """Raises an error if two lists name the same file."""
    whole = join([source for own in parts.values() for source in own])
    counts = pc.value_counts(whole.files.array)
    several = pc.greater(counts.field("counts"), 1)
    if pc.any(several).as_py():
        name = os.fsdecode(counts.field("values").filter(several)[0].as_py())
        raise ValueError(
            f"{whole.origin} name {os.path.join(whole.root, name)} twice; each file "
            "must be in one list and one split"
        )


def load_unsplit_lists(
    files: Sequence[Path], *, decoding: Decoding = DEFAULT_DECODING
) -> FolderSource:
    """Returns all images of lists, also those of other splits.

    Raises:
        FileNotFoundError: as `load_lists`.
        ValueError: as `load_lists`.
    """
    tables = ((file, read_table(file, {"split": ""})) for file in files)
    found = [files_of(x, file, file.parent, "train", decoding) for file, x in tables]
    return choose_splits({"train": [images["train"] for images in found]}).train


def split_of_name(file: Path) -> str:
    """Returns the split in the name of a list; "train" if there is none.

    >>> split_of_name(Path("Val_labels.csv")), split_of_name(Path("trainLabels.csv"))
    ('val', 'train')
    """
    for split, aliases in SPLIT_NAMES.items():
        if re.match(f"(?i:{'|'.join(aliases)})(?![a-z])", file.name):
            return split
    return "train"


def files_of(
    table: Table,
    file: Path,
    root: Path,
    split: str,
    decoding: Decoding = DEFAULT_DECODING,
) -> SplitFiles:
    """Returns the images of a table by split.

    Args:
        table: the table.
        file: the file of the table, for messages.
        root: folder from which paths start.
        split: the split of all rows, if there is no column of splits.
        decoding: how the files are decoded.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: as `load_lists`.
    """
    paths = _paths(table.columns["image"], file)
    splits, notes = _splits(table, len(paths), split, file)
    names, labels, why = number_labels(table.columns.get("label"), len(paths), file)
    why += _other_columns(table) if "label" not in table.columns else ""
    rows = np.concatenate([np.flatnonzero(splits == i) for i in range(len(_SPLITS))])
    found = pa.concat_arrays(
        [
            _located(paths.filter(pa.array(splits == i)), file, root, name)
            for i, name in enumerate(_SPLITS)
        ]
    )
    splits, labels = splits[rows], labels[rows]
    first = _first_rows(found, splits, labels, file)
    if len(first) < len(found):
        repeated = len(found) - len(first)
        notes.append(f"{repeated:,} repeated rows of {file} are counted once")
    found = found.take(pa.array(first))
    splits, labels = splits[first], labels[first]
    missing = int((labels == NO_LABEL).sum())
    if names and missing:
        notes.append(f"{missing:,} of {len(labels):,} images of {file} have no label")
    several = len(np.unique(splits)) > 1
    return {
        name: FolderSource(
            str(root),
            Names(found.filter(pa.array(splits == i))),
            labels[splits == i],
            names,
            decoding=decoding,
            why_unlabeled=why,
            notes=(_columns_note(table, file), *notes),
            title=f"{file} ({name})" if several else str(file),
        )
        for i, name in enumerate(_SPLITS)
        if (splits == i).any()
    }


def _other_columns(table: Table) -> str:
    """Returns how to use other columns of a table without labels."""
    if not table.others:
        return ""
    several = f", or label={'+'.join(table.others)} if one of them is 1 in each row"
    return (
        f", but {', '.join(table.others[:5])}{', ...' * (len(table.others) > 5)}; name "
        f"the one with classes, {FIELD}=label={table.others[0]}"
        + several
        * (2 <= len(table.others) <= 100)
    )


def _columns_note(table: Table, file: Path) -> str:
    used = [f"{kind}s are {name!r}" for kind, name in table.names.items()]
    return f"{file} lists the images" + (f"; columns: {', '.join(used)}" * bool(used))


def _paths(column: Any, file: Path) -> Any:
    """Returns the paths in the form of this system."""
    empty = pc.sum(pc.or_kleene(pc.is_null(column), pc.equal(column, ""))).as_py()
    if empty:
        raise ValueError(f"{file}: {empty:,} rows have no path; remove them")
    urls = pc.match_substring_regex(column, r"^[A-Za-z][A-Za-z0-9+.-]+://")
    if pc.any(urls).as_py():
        raise ValueError(
            f"{file}: {column.filter(urls)[0]} must be a path of this machine, not a "
            "URL; download the images, and list the local paths"
        )
    column = pc.if_else(  # of Windows
        pc.match_substring(column, "/"), column, pc.replace_substring(column, "\\", "/")
    )
    return pc.replace_substring_regex(column, r"^(\./+)+", "")


def _splits(
    table: Table, count: int, split: str, file: Path
) -> tuple[np.ndarray, list[str]]:
    """Returns the number of each row's split, -1 for others, and a note on these."""
    if "split" not in table.columns:
        return np.full(count, _SPLITS.index(split), np.int32), []
    values = table.columns["split"]
    known = {x: i for i, own in enumerate(SPLIT_NAMES.values()) for x in own}
    numbers = _numbers(pc.utf8_lower(values), list(known), list(known.values()))
    others = values.filter(pa.array(numbers == NO_LABEL)).value_counts().to_pylist()
    unused = [
        f"split {item['values'] or ''!r} ({item['counts']:,} rows)" for item in others
    ]
    return numbers, [f"{file}: {not_used(unused)}"] if unused else []


def number_labels(
    column: Any, count: int, file: str | Path
) -> tuple[tuple[str, ...], np.ndarray, str]:
    """Returns the names of classes, the class of each row, and why there is none.

    Args:
        column: the labels, an Arrow array of large_string; None if there are none.
        count: number of rows.
        file: file of the labels, for messages.
    """
    none = np.full(count, NO_LABEL, np.int32)
    if column is None:
        return (), none, f"{file} has no column of labels"
    column = _whole_numbers(column)
    names = ordered(pc.unique(column.drop_null()).to_pylist())
    labeled = count - column.null_count
    if len(names) > max(2, _UNIQUE * labeled):
        return (
            (),
            none,
            (
                f"the labels of {file} are no classes, because {labeled:,} rows have "
                f"{len(names):,} of them; name another column with {FIELD}=label=NAME"
            ),
        )
    return tuple(names), _numbers(column, names, range(len(names))), ""


def _whole_numbers(labels: Any) -> Any:
    """Returns labels such as "1.0", as pandas writes them, as "1"; -1 as missing."""
    try:
        numbers = pc.cast(labels, pa.int64())
    except pa.ArrowInvalid:
        try:
            numbers = pc.cast(pc.cast(labels, pa.float64()), pa.int64())
        except pa.ArrowInvalid:
            return labels  # names, or fractions
    missing = pa.scalar(None, pa.large_string())
    return pc.if_else(pc.less(numbers, 0), missing, pc.cast(numbers, pa.large_string()))


def _numbers(values: Any, names: Sequence[str], numbers: Sequence[int]) -> np.ndarray:
    """Returns the number of each value; NO_LABEL if it is not among the names."""
    known = pa.array(names, pa.large_string())
    found = pc.fill_null(pc.index_in(values, value_set=known, skip_nulls=True), -1)
    return np.array([*numbers, NO_LABEL], np.int32)[found.to_numpy()]


def _first_rows(
    files: Any, splits: np.ndarray, labels: np.ndarray, file: Path
) -> np.ndarray:
    """Returns the first row of each file; raises if two rows of a file differ."""
    codes = files.dictionary_encode().indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    for what, values in (("splits", splits), ("labels", labels)):
        differ = np.flatnonzero(values != values[first[inverse]])
        if len(differ):
            name = os.fsdecode(files[int(differ[0])].as_py())
            raise ValueError(
                f"{file} lists {name} with two {what} ({len(differ):,} such rows); "
                f"keep one, or use --{FIELD}={what[:-1]}= to ignore the {what}"
            )
    return np.sort(first)


def _located(paths: Any, file: Path, root: Path, split: str) -> Any:
    """Returns the files of paths, relative to the root or absolute, as large_binary.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if several files fit a path.
    """
    paths = pc.cast(paths, pa.large_binary())
    folders = [x.as_py() for x in pc.unique(_folders(paths))]
    exact = pa.concat_arrays(
        [
            pa.array(
                [folder + name for name in _names(root, folder)], pa.large_binary()
            )
            for folder in folders
        ]
        or [pa.array([], pa.large_binary())]
    )
    exists = pc.is_in(paths, value_set=exact)
    places = _places(root, split)
    found = pc.if_else(exists, paths, pa.scalar(None, pa.large_binary()))
    while found.null_count and places:
        choices = _choices(root, places.pop(0), folders)
        keys = pa.array(choices.keys(), pa.large_binary())
        values = pa.array(choices.values(), pa.large_binary())
        found = pc.coalesce(found, values.take(pc.index_in(paths, value_set=keys)))
    _require_found(found, paths, file, root)
    return found


def _folders(paths: Any) -> Any:
    """Returns the folder of each path, with the separator at its end."""
    text = pc.cast(paths, pa.large_string())
    return pc.cast(pc.replace_substring_regex(text, "[^/]*$", ""), pa.large_binary())


def _require_found(found: Any, paths: Any, file: Path, root: Path) -> None:
    several = pc.equal(found, pa.scalar(_SEVERAL, pa.large_binary()))
    if pc.any(several).as_py():
        name = os.fsdecode(paths.filter(several)[0].as_py())
        raise ValueError(
            f"{file}: several files in {root} fit {name!r}; write the whole path, or "
            "set config.data.path to the folder from which paths start"
        )
    if found.null_count:
        missing = paths.filter(pc.is_null(found))
        names = ", ".join(os.fsdecode(x.as_py()) for x in missing[:3])
        raise FileNotFoundError(
            f"{len(missing):,} of {len(paths):,} files of {file} do not exist: {names}"
            f"{', ...' * (len(missing) > 3)}; paths start from {root}, or from "
            "config.data.path if it is given"
        )


def _places(root: Path, split: str) -> list[list[str]]:
    """Returns the sub-folders to look for files in, preferred ones first."""
    folders = sub_folders(root)
    own = find_splits(folders)[split]
    return [[""], own, [folder for folder in folders if folder not in own]]


def _choices(
    root: Path, places: Sequence[str], folders: Sequence[bytes]
) -> dict[bytes, bytes]:
    """Returns the files that fit a path, with or without a suffix; _SEVERAL if many."""
    whole: dict[bytes, bytes] = {}
    stems: dict[bytes, bytes] = {}
    suffixes = {os.fsencode(suffix) for suffix in readable_suffixes()}
    for place in map(os.fsencode, places):
        for folder in folders:
            start = os.path.join(place, folder)
            for name in _names(root, start):
                stem, suffix = os.path.splitext(name)
                _add(whole, folder + name, start + name)
                if suffix.lower() in suffixes:
                    _add(stems, folder + stem, start + name)
    return stems | whole


def _add(choices: dict[bytes, bytes], path: bytes, file: bytes) -> None:
    if choices.setdefault(path, file) != file:
        choices[path] = _SEVERAL


def _names(root: Path, folder: bytes) -> Iterator[bytes]:
    """Yields the names of the files in a folder; none if there is no such folder."""
    path = os.path.join(os.fsencode(root), folder)
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries if entry.is_file())
