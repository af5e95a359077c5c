"""CIFAR-10 in stock TFDS's layout, from its authors' archive or NumPy arrays."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from logo_jax.data.builders.cifar import Row, examples, split_generators
from logo_jax.data.builders.downloads import Published
from logo_jax.data.builders.writing import write
from logo_jax.data.sources.base import SPLITS
from logo_jax.data.sources.npz import load_npz
from logo_jax.storage.paths import local_path

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_Stock = tfds.image_classification.Cifar10
_Arrays = tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"]]


class Cifar10(Published, _Stock, skip_registration=True):
    """Writes CIFAR-10 from its authors' archive."""

    name = "cifar10"
    url_infos: Any = _Stock.url_infos  # a subclass does not inherit the checksum
    otherwise = (
        ", or write it from NumPy arrays: python -m logo_jax.prepare cifar10 "
        "--from_arrays=DIR"
    )

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        (url,) = self.url_infos
        return split_generators(self, self.fetch(dl_manager, url))


class Cifar10FromArrays(Cifar10, skip_registration=True):
    """Writes CIFAR-10 from NumPy arrays.

    Args:
        arrays: images, uint8 [n, 32, 32, 3], and labels, integers [n], of each split.
        origin: folder of the array files; recorded in dataset_info.json under
            `dataSourceAccesses`.
        **kwargs: arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    name = "cifar10"

    def __init__(self, *, arrays: Mapping[str, _Arrays], origin: Path, **kwargs: Any):
        super().__init__(**kwargs)
        self._arrays = arrays
        self._origin = origin

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        del dl_manager
        self.info.add_file_data_source_access(str(self._origin))
        features: Any = self.info.features
        features["label"].names = list(CLASS_NAMES)
        return {
            split: examples(split, _rows(arrays), ["label"])
            for split, arrays in self._arrays.items()
        }


def from_arrays(folder: Path, arrays_dir: Path) -> Path:
    """Prepares CIFAR-10 from `train.npz` and `test.npz` in arrays_dir.

    Any number of images is accepted.

    Returns:
        The folder of the prepared data set.

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: unless images are uint8 [n, 32, 32, 3] and labels are integers [n]
            in [0, 10).
    """
    arrays = {split: read_arrays(arrays_dir, split) for split in SPLITS}
    origin = local_path(arrays_dir).absolute()

    def make_builder(**kwargs: Any) -> Cifar10FromArrays:
        return Cifar10FromArrays(arrays=arrays, origin=origin, **kwargs)

    return write(Cifar10.name, make_builder, folder, expected={})


def read_arrays(arrays_dir: Path, split: str) -> _Arrays:
    """Reads one split: images uint8 [n, 32, 32, 3] and labels [n] in [0, 10).

    Raises:
        FileNotFoundError: if `<split>.npz` is missing.
        ValueError: if the images have another shape or dtype, or the labels are
            missing or out of range.
    """
    rows = load_npz(arrays_dir, split)
    file = arrays_dir / f"{split}.npz"
    if rows.images.shape[1:] != (32, 32, 3):
        raise ValueError(
            f"{file}: images must have shape [n, 32, 32, 3], got "
            f"{list(rows.images.shape)}"
        )
    if rows.labels is None:
        raise ValueError(
            f"{file} has no labels; add an array 'labels' of integers in [0, 10)"
        )
    if rows.labels.ndim != 1:
        raise ValueError(
            f"{file}: labels must be integers [n] in [0, 10), got "
            f"{list(rows.labels.shape)}; use labels.argmax(1)"
        )
    if rows.labels.max() >= len(CLASS_NAMES):
        raise ValueError(
            f"{file}: labels must be in [0, 10), got {rows.labels.max()}; number the "
            "ten classes from 0"
        )
    return rows.images, rows.labels


def _rows(arrays: _Arrays) -> Iterator[Row]:
    for pixels, label in zip(*arrays, strict=True):
        yield pixels, [int(label)]
