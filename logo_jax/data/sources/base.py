"""Interface of image sources, and sources in memory with validated arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

SPLITS = ("train", "test")
NO_LABEL = -1
_LABEL_MAX = 2**20  # kNN allocates a vote for every class

Stored: TypeAlias = bytes | Path | np.ndarray


class Record(NamedTuple):
    """One image as it is stored, and its class.

    Attributes:
        image: an encoded image, the file that holds one, or pixels, uint8 [h, w, 3].
        label: its class, or NO_LABEL; of multi-label data 1, 0 or -1 for each class,
            [c].
    """

    image: Stored
    label: int | np.ndarray


def class_of(record: Record) -> int:
    """The class of an image; NO_LABEL if it is unknown or multi-label."""
    return NO_LABEL if np.ndim(record.label) else int(record.label)


@runtime_checkable
class ImageSource(Protocol):
    """Undecoded images by number, 0 to n - 1; picklable for reader processes."""

    @property
    def origin(self) -> str:
        """Where the images are read from, for messages."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        ...

    @property
    def largest(self) -> tuple[int, int] | None:
        """Upper bound of the images' (height, width) in pixels; None if unknown."""
        ...

    def __len__(self) -> int: ...

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """The images of these numbers, in this order."""
        ...

    def name(self, i: int) -> str:
        """Name of image i, for messages."""
        ...


class ArraySource:
    """Decoded images of one size in memory: an `ImageSource`.

    Args:
        images: uint8 array [n, h, w, 3], n >= 1, in [0, 255]; it is not copied.
        labels: array of any integer type, or None; becomes int32. [n]: the class of
            each image, NO_LABEL if unknown. [n, c]: multi-label, 1 if the image shows
            a class, -1 if not, 0 if it is not counted.
        origin: where the arrays were read from, for errors.
        class_names: name of each class, indexed by label; may be empty.

    Raises:
        ValueError: if type, shape or count is wrong, or a label is negative.
    """

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        *,
        origin: str,
        class_names: Sequence[str] = (),
    ):
        self.images = _checked_images(np.asarray(images), origin)
        self.labels = None
        if labels is not None:
            self.labels = _checked_labels(np.asarray(labels), len(self.images), origin)
        self.origin = origin
        self.class_names = tuple(class_names)

    @property
    def num_classes(self) -> int:
        """Number of columns of multi-labels; else the largest label plus one."""
        if self.labels is None:
            return 0
        if self.labels.ndim == 2:
            return self.labels.shape[1]
        return int(self.labels.max()) + 1

    @property
    def largest(self) -> tuple[int, int]:
        """(height, width) of every image."""
        return self.images.shape[1], self.images.shape[2]

    def __len__(self) -> int:
        return len(self.images)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """The images of these numbers, in this order."""
        labels = self.labels
        return [
            Record(self.images[i], NO_LABEL if labels is None else labels[i])
            for i in ids
        ]

    def name(self, i: int) -> str:
        """Name of image i, for messages."""
        return f"image {i} of {self.origin}"


class Subset:
    """Some of the images of a source: an `ImageSource`.

    Args:
        source: of images.
        ids: numbers of the images, in this order, [n].
        origin: name of the subset, for messages.
    """

    def __init__(self, source: ImageSource, ids: np.ndarray, origin: str):
        self._source, self._ids = source, np.asarray(ids)
        self.origin = origin
        self.num_classes = source.num_classes
        self.largest = source.largest
        self.class_names = getattr(source, "class_names", ())

    def __len__(self) -> int:
        return len(self._ids)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """The images of these numbers, in this order."""
        return self._source.records(self._ids[np.asarray(ids, np.intp)])

    def name(self, i: int) -> str:
        """Name of image i in the source, for messages."""
        return self._source.name(int(self._ids[i]))


def require_split(split: str) -> None:
    """Raises ValueError unless split is one of SPLITS."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}")


def _checked_images(images: np.ndarray, origin: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"{origin}: images are {images.dtype} {list(images.shape)}, "
            "must be uint8 [n, h, w, 3]; convert them, 0 for black, 255 for white"
        )
    if images.size == 0:
        raise ValueError(
            f"{origin}: images {list(images.shape)} are empty; give at least one"
        )
    return images


def _checked_labels(labels: np.ndarray, num_images: int, origin: str) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim not in (1, 2):
        raise ValueError(
            f"{origin}: labels are {labels.dtype} {list(labels.shape)}, "
            "must be integers [n], or [n, classes]; number the classes from 0"
        )
    if len(labels) != num_images:
        raise ValueError(
            f"{origin}: {len(labels)} labels for {num_images} images; "
            "give one label for each image"
        )
    if labels.ndim == 2 and not np.isin(labels, (-1, 0, 1)).all():
        raise ValueError(
            f"{origin}: labels [n, classes] must be 1 (shown), 0 (not counted) or -1"
        )
    if labels.ndim == 1 and labels.min() < NO_LABEL:
        raise ValueError(
            f"{origin}: label {labels.min()} is negative; number the classes from 0"
        )
    if labels.max() > _LABEL_MAX:
        raise ValueError(
            f"{origin}: label {labels.max()} is too large; number the classes from 0"
        )
    return labels.astype(np.int32)
