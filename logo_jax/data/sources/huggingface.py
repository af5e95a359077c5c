"""Images from data sets of Hugging Face's `datasets`, on this machine.

The folder is one that `save_to_disk` wrote, or one with Parquet files as on the hub, of
which `datasets` writes a copy to its cache. Images are read by their number from files
that are mapped into memory, and decoded by the decoder of all other sources.
"""

import dataclasses
import importlib
import importlib.util
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from logo_jax.data.sources.arrow import pa, pc
from logo_jax.data.sources.base import DEFAULT_DECODING, NO_LABEL, Decoding, Record
from logo_jax.data.sources.columns import FIELD, USUAL_NAMES
from logo_jax.data.sources.folder import (
    HOLD_OUT,
    existing_folder,
    find_splits,
    not_used,
)
from logo_jax.data.sources.lists import number_labels
from logo_jax.data.sources.scan import files_with_suffix

_SAVED = ("dataset_dict.json", "dataset_info.json")  # written by save_to_disk


@dataclasses.dataclass(frozen=True, eq=False)
class HuggingFaceSource:
    """`ImageSource` of a `datasets.Dataset`.

    Attributes:
        rows: the data set in the format "arrow", with the column of images.
        column: name of the column of images.
        origin: name of the images, for messages.
        labels: class of each image, int32 [n], NO_LABEL if unknown; empty if unlabeled.
        class_names: names of the classes, indexed by label.
        decoding: how the images are decoded.
        notes: sentences about how the images were found, for the start of a run.
        largest: None, because the sizes of the images are unknown.
    """

    rows: Any
    column: str
    origin: str
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    decoding: Decoding = DEFAULT_DECODING
    notes: tuple[str, ...] = ()
    largest: tuple[int, int] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 if the images are unlabeled."""
        return len(self.class_names)

    @property
    def files(self) -> list[str]:
        """Names of all images: the names of their files, or their numbers."""
        names = self._paths().to_pylist()
        return [name or f"row {i}" for i, name in enumerate(names)]

    def __len__(self) -> int:
        return len(self.rows)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Returns the images with the given numbers, in the given order."""
        ids = np.asarray(ids, np.int64)
        labels = self.labels[ids] if self.num_classes else np.full(len(ids), NO_LABEL)
        images = self.rows[ids.tolist()].column(self.column).to_pylist()
        return [
            Record(_stored(image), int(label), self.decoding)
            for image, label in zip(images, labels, strict=True)
        ]

    def take(self, ids: Sequence[int] | np.ndarray) -> Self:
        """Returns a source of the images with the given numbers, in that order."""
        labels = self.labels[ids] if self.num_classes else self.labels
        return dataclasses.replace(self, rows=self.rows.select(ids), labels=labels)

    def labeled(self) -> Self:
        """Returns the images whose class is known; the source itself if all are."""
        known = np.flatnonzero(self.labels != NO_LABEL)
        return self if len(known) == len(self) else self.take(known)

    def name(self, i: int) -> str:
        """Name of image i, for error messages."""
        return f"row {i} of {self.origin}"

    def checksum(self) -> int:
        """Checksum of the names of files, the labels and the classes."""
        crc = zlib.crc32("\0".join(self.class_names).encode())
        crc = zlib.crc32(self.labels.astype(np.int32).tobytes(), crc)
        for chunk in self._paths().chunks:
            crc = zlib.crc32(
                "\0".join(x or "" for x in chunk.to_pylist()).encode(), crc
            )
        return crc

    def _paths(self) -> Any:
        """The names of the files; the encoded images are not read."""
        column = self.rows.data.column(self.column)
        paths = pa.chunked_array([x.field("path") for x in column.chunks], pa.string())
        mapping = self.rows._indices
        return paths if mapping is None else paths.take(mapping.column(0))


def _stored(image: Mapping[str, Any] | None) -> bytes | Path:
    if image is None:
        return b""  # counts as an image that cannot be decoded
    if image["bytes"] is None and image["path"]:
        return Path(image["path"])
    return image["bytes"] or b""


class HuggingFaceSplits(NamedTuple):
    """The splits of a data set.

    Attributes:
        train: the training images.
        test: the labeled images for queries; None if there are none.
        remark: which splits are not used; without `test`, why.
    """

    train: HuggingFaceSource
    test: HuggingFaceSource | None
    remark: str


def is_saved(folder: Path) -> bool:
    """Whether a folder is that of a data set of Hugging Face's `datasets`."""
    saved = any((folder / name).is_file() for name in _SAVED)
    places = (folder, folder / "data")
    return saved or any(any(files_with_suffix(x, ".parquet")) for x in places)


def load_huggingface(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    decoding: Decoding = DEFAULT_DECODING,
) -> HuggingFaceSplits:
    """Returns the training images of a data set, and its labeled images for queries.

    The splits have the names of `folder.SPLIT_NAMES`; a data set without splits is for
    training. The columns are found by their types, Image and ClassLabel, or else by the
    usual names of columns.

    Args:
        path: folder of the data set.
        columns: names of columns that are to be used, as of `parse_columns`.
        decoding: how the images are decoded.

    Raises:
        FileNotFoundError: if the folder is missing.
        ValueError: if it has no data set, or no training images, or if it is not clear
            which columns have the images and the labels.
    """
    found = _load(existing_folder(path))
    splits = find_splits(found)
    names = [*splits["train"][:1], *splits["val"], *splits["test"]]
    if not splits["train"]:
        if len(found) != 1:
            raise ValueError(
                f"{path} has the splits {', '.join(found)}, but no split train; save "
                "one of this name, or save one split alone"
            )
        names = list(found)
    parts = _sources(path, {name: found[name] for name in names}, columns, decoding)
    train, *others = parts.values()
    unused = [f"split {name!r}" for name in found if name not in names]
    if train.num_classes and not (train.labels != NO_LABEL).any():
        hidden = dataclasses.replace(train, class_names=())
        reason = f"no image of {train.origin} has a label"
        return HuggingFaceSplits(hidden, None, reason)
    labeled = [x for x in others if (x.labels != NO_LABEL).any()]
    if not (train.num_classes and labeled):
        reason = f"{path} has no labeled split val or test; {HOLD_OUT}"
        return HuggingFaceSplits(train, None, reason if train.num_classes else "")
    unused += [part.origin for part in others if part is not labeled[0]]
    return HuggingFaceSplits(train, labeled[0].labeled(), not_used(unused))


def load_unsplit_huggingface(
    path: str | Path, *, decoding: Decoding = DEFAULT_DECODING
) -> HuggingFaceSource:
    """Returns the images of all splits of a data set.

    Raises:
        FileNotFoundError: if the folder is missing.
        ValueError: as `load_huggingface`.
    """
    found = _load(existing_folder(path))
    rows = {"": _package().concatenate_datasets(list(found.values()))}
    return _sources(path, rows, None, decoding)[""]


def _load(folder: Path) -> dict[str, Any]:
    """Returns the splits of a data set as `datasets.Dataset`."""
    if not is_saved(folder):
        raise ValueError(
            f"{folder} has no data set of Hugging Face; give a folder that "
            "datasets.save_to_disk wrote, or one with .parquet files"
        )
    datasets = _package()
    try:
        if any((folder / name).is_file() for name in _SAVED):
            found: Any = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder))
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder} cannot be read ({reason}); save it again"
        ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def _package() -> Any:
    """Imports `datasets`; raises ValueError if it is not installed."""
    if not importlib.util.find_spec("datasets"):
        raise ValueError(
            "config.data.source='huggingface' needs the package datasets: pip install "
            "'logo_jax[huggingface]'"
        )
    return importlib.import_module("datasets")


def _sources(
    path: str | Path,
    found: Mapping[str, Any],
    columns: Mapping[str, str] | None,
    decoding: Decoding,
) -> dict[str, HuggingFaceSource]:
    """Returns sources of splits, with common classes."""
    datasets, columns = _package(), columns or {}
    features = next(iter(found.values())).features
    image = _column(path, features, datasets.Image, "image", columns)
    label = _column(path, features, datasets.ClassLabel, "label", columns)
    if not image:
        raise ValueError(
            f"{path} has no column of the type Image, but {', '.join(features)}; cast "
            "a column to it and save the data set again"
        )
    used = f"columns: images are {image!r}" + (f", labels are {label!r}" * bool(label))
    names, labels, why = _labels(path, found, label, features.get(label))
    notes = (f"{path}: {used}", *([why] if why and label else []))
    ends = np.cumsum([len(rows) for rows in found.values()])
    none = np.empty(0, np.int32)
    return {
        name: HuggingFaceSource(
            rows.select_columns([image]).with_format("arrow"),
            image,
            f"{path} ({name})" if name else str(path),
            labels[end - len(rows) : end] if names else none,
            names,
            decoding,
            notes,
        )
        for (name, rows), end in zip(found.items(), ends.tolist(), strict=True)
    }


def _column(
    path: str | Path,
    features: Mapping[str, Any],
    kind: type,
    what: str,
    columns: Mapping[str, str],
) -> str:
    """Returns the name of a column by its type, or by a usual name; "" if none."""
    if what in columns:
        name = columns[what]
        if name and name not in features:
            raise ValueError(
                f"{path} has no column {name!r}, which {FIELD} names; it has "
                f"{', '.join(features)}"
            )
        return name
    typed = [name for name, feature in features.items() if isinstance(feature, kind)]
    usual = [name for name in USUAL_NAMES[what] if name in (typed or features)]
    if len(typed) > 1 and not usual:
        raise ValueError(
            f"{path} has several columns of {what}s, {', '.join(typed)}; choose one "
            f"with {FIELD}={what}={typed[0]}"
        )
    if what == "image":
        usual = [name for name in usual if name in typed]
    return next(iter(usual + typed), "")


def _labels(
    path: str | Path, found: Mapping[str, Any], label: str, feature: Any
) -> tuple[tuple[str, ...], np.ndarray, str]:
    """Returns the names of classes, the class of each row, and why there is none."""
    count = sum(map(len, found.values()))
    if not label:
        return number_labels(None, count, path)
    tables = [
        rows.select_columns([label]).with_format("arrow")[:] for rows in found.values()
    ]
    column = pa.concat_tables(tables).column(label).combine_chunks()
    names = getattr(feature, "names", None)
    if names is None:
        text = pc.cast(column, pa.large_string())
        text = pa.concat_arrays(text.chunks) if hasattr(text, "chunks") else text
        return number_labels(text, count, path)
    codes = np.asarray(pc.fill_null(column, NO_LABEL)).astype(np.int32)
    return tuple(names), np.maximum(codes, NO_LABEL), ""
