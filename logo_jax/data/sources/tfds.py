"""Images from data sets in TFDS format, read without TensorFlow."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from logo_jax.data import datasets
from logo_jax.data.sources.base import DEFAULT_DECODING, NO_LABEL, Decoding, Record
from logo_jax.storage.paths import local_path

READABLE_FORMAT = tfds.core.FileFormat.ARRAY_RECORD


class TfdsSource:
    """`ImageSource` of one split of a prepared data set, in storage order.

    Args:
        builder: TFDS builder of the data set.
        split: a TFDS split, a slice ("train[:10%]") or a sum ("train+test").
        decoding: how the images are decoded.

    Raises:
        ValueError: if the data set does not have the split, or has no images.
    """

    def __init__(self, builder: Any, split: str, decoding: Decoding = DEFAULT_DECODING):
        self._decoding = decoding
        features: Any = builder.info.features
        if "image" not in features:
            raise ValueError(
                f"{builder.name} must have an 'image' feature, got {sorted(features)}"
            )
        self.origin = f"{builder.name} {split}"
        undecoded = {"image": tfds.decode.SkipDecoding()}
        # TFDS supports sums of splits only in tf.data pipelines, so each part is
        # opened separately.
        self._parts: list[Any] = [
            builder.as_data_source(split=part.strip(), decoders=undecoded)
            for part in split.split("+")
        ]
        self._ends = np.cumsum([len(part) for part in self._parts])
        classes = _classes(features)
        self._several = classes is not None and "label" not in features
        self.num_classes = classes.num_classes if classes else 0
        self.class_names = tuple(classes.names) if classes else ()
        self.largest = _fixed_size(features["image"].shape)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Returns the images with the given numbers, in the given order."""
        ids = np.asarray(ids)
        found: list[Any] = [None] * len(ids)
        part_of = np.searchsorted(self._ends, ids, side="right")
        for number, part in enumerate(self._parts):
            rows = np.flatnonzero(part_of == number)
            first = self._ends[number] - len(part)
            # array_record is four times as fast if it reads examples in batches.
            examples = part.__getitems__((ids[rows] - first).tolist())
            for row, example in zip(rows, examples, strict=True):
                found[row] = Record(
                    example["image"], self._label(example), self._decoding
                )
        return found

    def _label(self, example: Mapping[str, Any]) -> int | np.ndarray:
        if not self._several:
            return int(example.get("label", NO_LABEL))
        shown = np.full(self.num_classes, -1, np.int32)
        shown[example["labels"]] = 0  # VOC's difficult objects are not counted
        shown[example.get("labels_no_difficult", example["labels"])] = 1
        return shown

    def name(self, i: int) -> str:
        """Name of image i, for error messages."""
        return f"image {i} of {self.origin}"


def _classes(features: Mapping[str, Any]) -> Any:
    """Returns the ClassLabel of single- or multi-label data; None if unlabeled."""
    if "label" in features:
        return features["label"]
    return (
        getattr(features["labels"], "feature", None) if "labels" in features else None
    )


def directory(data_dir: str | Path = "") -> Path:
    """Returns the folder of prepared data sets: data_dir, or TFDS's default if empty.

    The default is $TFDS_DATA_DIR if it is set, and ~/tensorflow_datasets otherwise.

    Raises:
        ValueError: if it is a URL.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return local_path(data_dir or default)


def require_readable(builder: tfds.core.DatasetBuilder) -> None:
    """Raises ValueError if reading the data set's files requires TensorFlow."""
    found = builder.info.file_format
    if found != READABLE_FORMAT:
        raise ValueError(
            f"{builder.data_path} is stored as {found and found.value}, which only "
            f"TensorFlow can read; prepare {builder.name} in another data_dir with "
            "file_format='array_record'"
        )


def prepared(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set prepared in folder.

    Raises:
        FileNotFoundError: if the data set is not prepared in folder.
        ValueError: if the data set is not stored as array_record.
    """
    try:
        builder = builder_from_files(name, data_dir=folder)
    except DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"{name} is not prepared in {folder}: {_remedy(name, folder)}"
        ) from error
    require_readable(builder)
    return builder


def _remedy(name: str, folder: Path) -> str:
    if dataset := datasets.find(name):
        return f"run python -m logo_jax.prepare {dataset.name} --data_dir={folder}"
    return "prepare it with TFDS and file_format='array_record'"


def _fixed_size(shape: Sequence[int | None]) -> tuple[int, int] | None:
    height, width = shape[:2]
    return None if height is None or width is None else (height, width)
