"""Images from data sets that TFDS has prepared, read without TensorFlow."""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from logo_jax.data import catalogue
from logo_jax.data.images import ImageSet, checked

READABLE_FORMAT = tfds.core.FileFormat.ARRAY_RECORD
_CHUNK = 512


def load(name: str, split: str, data_dir: str | Path = "") -> ImageSet:
    """All images of one split, decoded, in the order in which they are stored.

    Args:
        name: a TFDS name, with a config or version where there are several
            ("cifar10", "imagenet_resized/32x32:0.1.0"); it needs an `image` feature.
        split: a TFDS split or slice of one ("train", "train[:10%]").
        data_dir: the folder that TFDS prepared the data set in; see `directory`.

    Returns:
        The images, in RGB; labels and class names if there is a `label` feature.

    Raises:
        FileNotFoundError: if the data set is not prepared in that folder.
        ValueError: if it is not stored as array_record, has no such split, has no
            images, or has images of different sizes.
    """
    builder: Any = _prepared(name, directory(data_dir))
    features = builder.info.features
    if "image" not in features:
        raise ValueError(f"{name} has no 'image' feature, only {sorted(features)}")
    undecoded = {"image": tfds.decode.SkipDecoding()}
    rows = builder.as_data_source(split=split, decoders=undecoded)
    examples = list(_examples(rows))
    images = decode([example["image"] for example in examples], origin=name)
    if "label" not in features:
        return checked(images, origin=name)
    labels = np.array([example["label"] for example in examples])
    return checked(
        images, labels, origin=name, class_names=getattr(features["label"], "names", ())
    )


def directory(data_dir: str | Path = "") -> Path:
    """The folder of prepared data sets: data_dir, else TFDS's own default.

    The default is $TFDS_DATA_DIR where it is set, else ~/tensorflow_datasets.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


def require_readable(builder: tfds.core.DatasetBuilder) -> None:
    """Raises ValueError unless the data set's files can be read without TensorFlow."""
    found = builder.info.file_format
    if found != READABLE_FORMAT:
        raise ValueError(
            f"{builder.data_path} is stored as {found and found.value}, which only "
            f"TensorFlow reads; prepare {builder.name} in another data_dir with "
            "file_format='array_record'"
        )


def decode(encoded: Sequence[bytes], *, origin: str) -> np.ndarray:
    """The pixels of encoded images (PNG, JPEG, ...) in RGB, uint8 [n, h, w, 3].

    Raises:
        ValueError: if they are not all of one size.
    """
    if not encoded:
        return np.empty((0, 0, 0, 3), np.uint8)
    images = np.empty((len(encoded), *_pixels(encoded[0]).shape), np.uint8)

    def decode_chunk(chunk: range) -> None:
        for i in chunk:
            pixels = _pixels(encoded[i])
            _require_same_size(pixels.shape, images.shape[1:], f"{origin}: image {i}")
            images[i] = pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode_chunk, _chunks(len(encoded))):
            pass
    return images


def _prepared(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    try:
        builder = builder_from_files(name, data_dir=folder)
    except DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"{name} is not prepared in {folder}: {_remedy(name, folder)}"
        ) from error
    require_readable(builder)
    return builder


def _remedy(name: str, folder: Path) -> str:
    if dataset := catalogue.find(name):
        return f"run python -m logo_jax.prepare {dataset.name} --data_dir={folder}"
    return "prepare it with TFDS and file_format='array_record'"


def _examples(rows: Any) -> Iterator[dict[str, Any]]:
    # Asked for many at once, array_record reads four times as fast.
    for chunk in _chunks(len(rows)):
        yield from rows.__getitems__(chunk)


def _chunks(n: int) -> list[range]:
    return [range(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]


def _pixels(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _require_same_size(shape: Sequence[int], first: Sequence[int], which: str) -> None:
    if tuple(shape) != tuple(first):
        raise ValueError(
            f"{which} is {shape[0]}x{shape[1]}, the first is {first[0]}x{first[1]}: "
            "images of several sizes must be streamed, which is not built yet"
        )
