"""Extraction of a data set's features with a frozen encoder, each example once."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

Encode = Callable[[np.ndarray], dict[str, jax.Array]]


@runtime_checkable  # for the tests, which check types
class LabeledImages(Protocol):
    """Labeled images for evaluation."""

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields each image once: values [b, h, w, c], any b >= 0; labels [b, ...]."""
        ...


class Features(NamedTuple):
    """Features and labels of a data set.

    Attributes:
        features: features of the images, float32 [n, d].
        labels: int32 [n], the class of each image; or, for multi-label images,
            [n, c]: 1 if the image shows the class, 0 if the image is not counted for
            the class, -1 if the image does not show the class.
    """

    features: np.ndarray
    labels: np.ndarray


class FeatureSplits(NamedTuple):
    """Data to train a classifier, to choose its settings and to report its accuracy."""

    train: Features
    val: Features
    test: Features


def require_classes(
    labels: np.ndarray, num_classes: int, name: str = "the data"
) -> None:
    """Raises an error unless each image has one class in [0, num_classes).

    Args:
        labels: labels of the images; [n] if each has one class.
        num_classes: number of classes.
        name: of the images, for the message.

    Raises:
        ValueError: if images are multi-label, if there are no images, or if a label is
            not in [0, num_classes).
    """
    if labels.ndim != 1:
        raise ValueError(
            f"labels of {name} have shape {labels.shape}, but this classifier needs "
            "one class per image; use --protocol=svm for multi-label images"
        )
    if not len(labels):
        raise ValueError(f"{name} is empty; give at least one image for each part")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels of {name} range from {labels.min()} to {labels.max()}, but must "
            f"be in [0, {num_classes}); give images whose labels are known and are "
            "classes of the training images"
        )


def extract(
    encode: Encode, data: LabeledImages, *, batch_size: int
) -> dict[str, Features]:
    """Returns the features of a data set, as a dict by layer name.

    Args:
        encode: function from stored values [batch_size, h, w, c] to features by layer.
            All calls have the same shape: the last batch is padded, and the features
            of the padding are dropped.
        data: images of one size.
        batch_size: number of images per call; a multiple of the number of devices.
    """
    parts = list(extract_batches(encode, data, batch_size=batch_size))
    return {
        layer: Features(
            *map(np.concatenate, zip(*(x[layer] for x in parts), strict=True))
        )
        for layer in (parts[0] if parts else ())
    }


def extract_batches(
    encode: Encode, data: LabeledImages, *, batch_size: int
) -> Iterator[dict[str, Features]]:
    """Yields what `extract` returns for one batch of images after another."""
    for batch, labels in _rebatched(data.batches(), batch_size):
        padding = [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
        encoded = encode(np.pad(batch, padding))
        yield {
            layer: Features(np.asarray(features)[: len(batch)], labels)
            for layer, features in encoded.items()
        }


def _rebatched(
    batches: Iterator[tuple[np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the images and labels in batches of `size`; the last may be smaller."""
    rest = None
    for images, labels in batches:
        if rest is not None:
            images, labels = (
                np.concatenate(pair)
                for pair in zip(rest, (images, labels), strict=True)
            )
        whole = len(images) // size * size
        for start in range(0, whole, size):
            yield images[start : start + size], labels[start : start + size]
        rest = images[whole:], labels[whole:]
    if rest is not None and len(rest[0]):
        yield rest
