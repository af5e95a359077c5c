"""A part of the labels of a data set, with every class in proportion."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from logo_jax.data.sources.base import (
    NO_LABEL,
    ArraySource,
    ImageSource,
    class_of,
)
from logo_jax.data.sources.canvases import CanvasSource
from logo_jax.data.sources.folder import FolderSource
from logo_jax.data.sources.huggingface import HuggingFaceSource
from logo_jax.data.splits import first_of_each_class

Labels = Int[np.ndarray, " n"]

MOST_LISTED = 1000  # images that a result file lists by number and by name
_READ_AT_ONCE = 1000
_WITH_LABELS = (ArraySource, CanvasSource, FolderSource, HuggingFaceSource)


class Amount(NamedTuple):
    """How many images of each class keep their label.

    Attributes:
        per_class: number of images of each class; 0 if `fraction` is given.
        fraction: fraction of the images of each class, in (0, 1], of which there is at
            least one image; 0 if `per_class` is given.
    """

    per_class: int = 0
    fraction: float = 0.0

    def of_class(self, size: int) -> int:
        """Returns the number of images of a class that has `size` images."""
        return self.per_class or max(1, round(self.fraction * size))

    def __str__(self) -> str:
        return str(self.per_class or self.fraction)


class FewLabels(NamedTuple):
    """The labeled images that an evaluation may use for training.

    Attributes:
        amount: how many of each class.
        seed: seed of the draw.
        rows: numbers of the images among all labeled training images, ascending.
        labels: their classes.
        total: number of all labeled training images.
    """

    amount: Amount
    seed: int
    rows: np.ndarray
    labels: np.ndarray
    total: int


def parse_amount(labels: Any) -> Amount:
    """Reads an amount: a whole number per class, or a fraction of each class.

    Raises:
        ValueError: if it is neither a whole number, 1 or more, nor in (0, 1].

    >>> parse_amount("0.01"), parse_amount(10)
    (Amount(per_class=0, fraction=0.01), Amount(per_class=10, fraction=0.0))
    """
    text = str(labels).strip()
    if text.isdecimal() and int(text):
        return Amount(per_class=int(text))
    try:
        fraction = float(text) if not text.isdecimal() else 0.0
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise ValueError(
            f"--labels={labels} must be a fraction of the labels of each class, such "
            "as 0.01 for 1 %, or a whole number of labels per class, such as 10"
        )
    return Amount(fraction=fraction)


def has_labels_in_memory(images: ImageSource) -> bool:
    """Whether the labels of images are known without reading the images."""
    return isinstance(images, _WITH_LABELS)


def labels_of(images: ImageSource) -> Labels:
    """Returns the class of each image, int32 [n], without decoding an image.

    Raises:
        ValueError: if images have several labels each.
    """
    (first,) = images.records([0])
    if np.ndim(first.label):
        raise ValueError(
            f"{images.origin} has several labels per image, but this needs one; use "
            "--protocol=svm without --labels, or other images"
        )
    if isinstance(images, _WITH_LABELS):
        known = images.labels if images.num_classes else None
        return np.full(len(images), NO_LABEL, np.int32) if known is None else known
    starts = range(0, len(images), _READ_AT_ONCE)
    parts = [np.arange(x, min(x + _READ_AT_ONCE, len(images))) for x in starts]
    found = [class_of(record) for ids in parts for record in images.records(ids)]
    return np.array(found, np.int32)


def draw(images: ImageSource, amount: Amount, seed: int) -> FewLabels:
    """Draws images of each class at random.

    With the same seed, a larger amount has all images of a smaller one.

    Args:
        images: labeled images, one class each.
        amount: how many of each class.
        seed: seed of the draw.

    Raises:
        ValueError: if a class has fewer images than the amount.
    """
    labels = labels_of(images)
    classes, sizes = np.unique(labels[labels != NO_LABEL], return_counts=True)
    smallest = sizes.argmin()
    if amount.per_class > sizes[smallest]:
        number = int(classes[smallest])
        names = getattr(images, "class_names", ())
        raise ValueError(
            f"--labels={amount} exceeds the {sizes[smallest]} labeled images of class "
            f"{names[number] if names else number} in {images.origin}; use "
            f"--labels={sizes[smallest]} or less"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[labels[order] != NO_LABEL]
    rows = first_of_each_class(order, labels, amount.of_class)
    return FewLabels(amount, seed, rows, labels[rows], len(labels))


def described(few: FewLabels, images: ImageSource) -> dict[str, Any]:
    """Returns the drawn images as a JSON object, for the result of an evaluation.

    Up to `MOST_LISTED` images are listed by their numbers and, if they are files, by
    their paths; any number of them is identified by the SHA-256 of their numbers.

    Args:
        few: the drawn images.
        images: all labeled training images, from which they were drawn.
    """
    counts = np.unique(few.labels, return_counts=True)[1]
    found = {
        "amount": str(few.amount),
        "seed": few.seed,
        "images": len(few.rows),
        "of": few.total,
        "classes": len(counts),
        "per_class": [int(counts.min()), int(counts.max())],
        "sha256": sha256(few.rows),
    }
    if len(few.rows) <= MOST_LISTED:
        found["indices"] = few.rows.tolist()
        files = getattr(images, "files", None)
        if files is not None:
            found["files"] = [str(files[i]) for i in few.rows.tolist()]
    return found


def sha256(numbers: np.ndarray) -> str:
    """Returns the SHA-256 of numbers, as little-endian integers of 64 bits."""
    return hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()


def summary(found: dict[str, Any]) -> str:
    """Returns what `described` found, in words.

    >>> few = {"images": 20, "of": 90, "classes": 2, "per_class": [10, 10], "seed": 0}
    >>> summary(few)
    'labels: 20 of 90 images, 10 of each of 2 classes (labels_seed=0)'
    """
    fewest, most = found["per_class"]
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return (
        f"labels: {found['images']:,} of {found['of']:,} images, {each} of each of "
        f"{found['classes']:,} classes (labels_seed={found['seed']})"
    )
