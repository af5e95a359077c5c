"""The form in which every source hands over its images, and what makes it valid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

SPLITS = ("train", "test")
NO_LABEL = -1
_LABEL_MAX = 2**20  # votes are counted for every class there may be

Stored: TypeAlias = bytes | Path | np.ndarray


class Record(NamedTuple):
    """One image as it is stored, and its class.

    Attributes:
        image: an encoded image, the file that holds one, or pixels, uint8 [h, w, 3].
        label: its class, or NO_LABEL; where an image may show several classes, 1, 0 or
            -1 for each, [c].
    """

    image: Stored
    label: int | np.ndarray


def class_of(record: Record) -> int:
    """The one class of an image; NO_LABEL where it is unknown or may be several."""
    return NO_LABEL if np.ndim(record.label) else int(record.label)


@runtime_checkable
class ImageSource(Protocol):
    """Images by number, 0 to n - 1, undecoded; picklable, to be read anywhere."""

    @property
    def origin(self) -> str:
        """What the images are read from, to name in messages."""
        ...

    @property
    def num_classes(self) -> int:
        """Of the labels; 0 where there are none."""
        ...

    @property
    def largest(self) -> tuple[int, int] | None:
        """(height, width) that no image exceeds, in pixels; None if unknown."""
        ...

    def __len__(self) -> int: ...

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """The images of these numbers, in this order."""
        ...

    def name(self, i: int) -> str:
        """What to call image i in a message."""
        ...


class ArraySource:
    """Decoded images of one size, found valid: an `Images` that is all in memory.

    Args:
        images: uint8 array [n, h, w, 3], n >= 1, in [0, 255]; it is not copied.
        labels: array of any integer type, or None; becomes int32. [n]: the class of
            each image, NO_LABEL where it is unknown. [n, c], in {-1, 0, 1}: whether it
            shows each class, 0 where that is not to be counted.
        origin: what the arrays were read from, to name in errors.
        class_names: name of each class, indexed by label; may be empty.

    Raises:
        ValueError: for another type, shape or count, or a negative label.
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
        """Columns of the labels, or one more than the largest."""
        if self.labels is None:
            return 0
        if self.labels.ndim == 2:
            return self.labels.shape[1]
        return int(self.labels.max()) + 1

    @property
    def largest(self) -> tuple[int, int]:
        """The size of every image."""
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
        """What to call image i in a message."""
        return f"image {i} of {self.origin}"


class Subset:
    """Some of the images of a source, an `Images` itself.

    Args:
        source: of images.
        ids: which of them, in this order, [n].
        origin: what to call them in messages.
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
        """What to call image i in a message: its name in the source."""
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
