"""CIFAR-10 in stock TFDS's layout, from its authors' archive or from arrays."""

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
    otherwise = " or give arrays with --from_arrays=DIR"

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        (url,) = self.url_infos
        return split_generators(self, self.fetch(dl_manager, url))


class Cifar10FromArrays(Cifar10, skip_registration=True):
    """Writes the same data set from arrays.

    Args:
        arrays: the images and labels of each split, as `read_arrays` gives them.
        origin: folder of the arrays' files; recorded in dataset_info.json, under
            `dataSourceAccesses`.
        **kwargs: of every TFDS builder.
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
    """Prepares the data set from `train.npz` and `test.npz` in arrays_dir.

    However many images they have, they are taken.

    Returns:
        The folder written.

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: if their arrays are not as `read_arrays` says.
    """
    arrays = {split: read_arrays(arrays_dir, split) for split in SPLITS}
    origin = arrays_dir.expanduser().absolute()

    def make_builder(**kwargs: Any) -> Cifar10FromArrays:
        return Cifar10FromArrays(arrays=arrays, origin=origin, **kwargs)

    return write(Cifar10.name, make_builder, folder, expected={})


def read_arrays(arrays_dir: Path, split: str) -> _Arrays:
    """Images and labels of one split: uint8 [n, 32, 32, 3], integers in [0, 10).

    Raises:
        FileNotFoundError: if `<split>.npz` is missing.
        ValueError: for another shape or type, and for missing or other labels.
    """
    rows = load_npz(arrays_dir, split)
    file = arrays_dir / f"{split}.npz"
    if rows.images.shape[1:] != (32, 32, 3):
        raise ValueError(
            f"{file}: images {list(rows.images.shape)} must be [n, 32, 32, 3]"
        )
    if rows.labels is None:
        raise ValueError(f"{file} has no labels; add 'labels', integers in [0, 10)")
    if rows.labels.max() >= len(CLASS_NAMES):
        raise ValueError(f"{file}: label {rows.labels.max()} must be in [0, 10)")
    return rows.images, rows.labels


def _rows(arrays: _Arrays) -> Iterator[Row]:
    for pixels, label in zip(*arrays, strict=True):
        yield pixels, [int(label)]
