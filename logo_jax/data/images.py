"""The form in which every source hands over its images, and what makes it valid."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SPLITS = ("train", "test")


class ImageSet(NamedTuple):
    """Decoded images of one size, row i of `labels` belonging to row i of `images`.

    Attributes:
        images: uint8 RGB pixels in [0, 255], [n, h, w, 3], n >= 1.
        labels: int32 classes >= 0, [n]; None where the source has none.
        class_names: name of each class, indexed by label; may be empty.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()


def checked(
    images: Any, labels: Any = None, *, origin: str, class_names: Sequence[str] = ()
) -> ImageSet:
    """An ImageSet whose arrays were found valid.

    Args:
        images: uint8 array [n, h, w, 3], n >= 1; it is not copied.
        labels: array [n] of any integer type, >= 0, or None; becomes int32.
        origin: what the arrays were read from, to name in errors.
        class_names: name of each class, indexed by label.

    Raises:
        ValueError: for another type, shape or count, or a negative label.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"{origin}: images are {images.dtype} {list(images.shape)}, "
            "must be uint8 [n, h, w, 3]"
        )
    if images.size == 0:
        raise ValueError(
            f"{origin}: images {list(images.shape)} are empty; give at least one"
        )
    if labels is not None:
        labels = _checked_labels(np.asarray(labels), len(images), origin)
    return ImageSet(images, labels, tuple(class_names))


def require_split(split: str) -> None:
    """Raises ValueError unless split is one of SPLITS."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}")


def _checked_labels(labels: np.ndarray, num_images: int, origin: str) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise ValueError(
            f"{origin}: labels are {labels.dtype} {list(labels.shape)}, "
            "must be integers [n]"
        )
    if len(labels) != num_images:
        raise ValueError(
            f"{origin}: {len(labels)} labels for {num_images} images; "
            "give one label for each image"
        )
    if labels.min() < 0:
        raise ValueError(f"{origin}: label {labels.min()} is negative, must be >= 0")
    return labels.astype(np.int32)
