"""Features of a data set by a frozen encoder, every example exactly once."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

Encode = Callable[[np.ndarray], dict[str, jax.Array]]


@runtime_checkable
class LabeledImages(Protocol):
    """Images with labels, to evaluate on."""

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each image once: uint8 [b, h, w, c] of any b >= 0, and labels [b, ...]."""
        ...


class Features(NamedTuple):
    """A data set as one encoder sees it.

    Attributes:
        features: [n, d] float32.
        labels: int32 [n]; or [n, c], 1 where an image shows a class, 0 where that is
            not to be counted, else -1.
    """

    features: np.ndarray
    labels: np.ndarray


class FeatureSplits(NamedTuple):
    """What a classifier is trained on, chosen by, and reported of."""

    train: Features
    val: Features
    test: Features


def require_classes(data: Features, num_classes: int, name: str = "the data") -> None:
    """Refuses labels that a classifier of one class an image cannot learn.

    Raises:
        ValueError: where images show several classes, there are none, or a label is
            not in [0, num_classes).
    """
    labels = data.labels
    if labels.ndim != 1:
        raise ValueError(
            f"labels of {name} are of shape {labels.shape}, and this classifier learns "
            "one class an image; use svm for images of several labels"
        )
    if not len(labels):
        raise ValueError(f"{name} is empty; give at least one image of each part")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels of {name} reach from {labels.min()} to {labels.max()} and must "
            f"lie in [0, {num_classes}); give num_classes of the data set"
        )


def extract(
    encode: Encode, data: LabeledImages, *, batch_size: int
) -> dict[str, Features]:
    """Features by layer name.

    Args:
        encode: from uint8 images [batch_size, h, w, c] to features by layer; called
            with one shape only: the last batch is padded and its padding dropped.
        data: images of one size.
        batch_size: images a call; a multiple of the number of devices.
    """
    parts: dict[str, list[np.ndarray]] = {}
    labels = []
    for batch, batch_labels in _rebatched(data.batches(), batch_size):
        padding = [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
        for layer, features in encode(np.pad(batch, padding)).items():
            parts.setdefault(layer, []).append(np.asarray(features)[: len(batch)])
        labels.append(batch_labels)
    return {
        layer: Features(np.concatenate(values), np.concatenate(labels))
        for layer, values in parts.items()
    }


def _rebatched(
    batches: Iterator[tuple[np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same images and labels, `size` at once, the last batch perhaps fewer."""
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
