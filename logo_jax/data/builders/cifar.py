"""CIFAR in stock TFDS's on-disk layout, written without TensorFlow.

Name, version, features, order and checksum are those of stock TFDS's builders.
Therefore the data sets written here and those that stock TFDS writes with
`file_format="array_record"` are read in the same way, including slices such as
`train[:10%]`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from logo_jax.data.builders.archives import read_members
from logo_jax.data.sources.base import SPLITS

_IMAGE_BYTES = 3 * 32 * 32
Row = tuple[UInt8[np.ndarray, "32 32 3"], Sequence[int]]


def split_generators(builder: Any, archive: Path) -> dict[str, Iterator[Any]]:
    """Returns the examples of each split and sets the class names of the builder.

    Args:
        builder: a stock TFDS builder. Its own reading and extraction need TensorFlow:
            tensorflow/datasets@tensorflow_datasets/image_classification/cifar.py.
        archive: the tar archive of binary files that CIFAR's authors publish.
    """
    layout = builder._cifar_info
    members = [layout.prefix + file for file in layout.label_files]
    names = read_members(archive, members)
    for key, member in zip(layout.label_keys, members, strict=True):
        builder.info.features[key].names = names[member].decode().split()
    files = {"train": layout.train_files, "test": layout.test_files}

    def of_split(split: str) -> Iterator[Any]:
        members = [layout.prefix + file for file in files[split]]
        rows = read_rows(archive, members, labels=len(layout.label_keys))
        return examples(split, rows, layout.label_keys)

    return {split: of_split(split) for split in SPLITS}


def read_rows(
    archive: Path, members: Sequence[str], *, labels: int = 1
) -> Iterator[Row]:
    """Yields the pixels and labels of each image in CIFAR's binary files.

    Each image is stored as one byte for each label, followed by the red, the green and
    the blue plane, each 32 rows of 32 bytes:
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Raises:
        ValueError: if a file is missing, or its size is not a multiple of an image's.
    """
    contents = read_members(archive, members)
    row_bytes = labels + _IMAGE_BYTES
    for member in members:
        if len(contents[member]) % row_bytes:
            raise ValueError(
                f"{archive}: the size of {member} must be a multiple of {row_bytes} "
                f"bytes, got {len(contents[member])}; download it again"
            )
        for row in np.frombuffer(contents[member], np.uint8).reshape(-1, row_bytes):
            pixels = row[labels:].reshape(3, 32, 32).transpose(1, 2, 0)
            yield pixels, row[:labels].tolist()


def examples(
    split: str, rows: Iterable[Row], label_keys: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the TFDS key and example of each image, in stock TFDS's order."""
    for i, (pixels, labels) in enumerate(rows):
        # TFDS encodes PIL images with Pillow but arrays with TensorFlow.
        example = {"id": f"{split}_{i:05d}", "image": Image.fromarray(pixels)}
        yield i, example | dict(zip(label_keys, labels, strict=True))
