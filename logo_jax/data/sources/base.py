"""Interface of image sources, and a source of validated arrays in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

SPLITS = ("train", "test")
NO_LABEL = -1
# Largest label: kNN allocates a vote per class, and a classifier a row. ImageNet-21k
# has 21,841 classes; more than 2**15 need as many images.
_LABEL_MAX = 2**20
_LABEL_MAX_OF_FEW = 2**15

Stored: TypeAlias = bytes | Path | np.ndarray


class Decoding(NamedTuple):
    """How stored images are decoded.

    Attributes:
        max_pixels: most pixels of an image; a larger image is not decoded. The default
            is the number above which Pillow refuses an image.
        bit_depth: number of bits that the values of 16-bit gray images use: the value
            2**bit_depth - 1 is white.
        channels: number of channels.
        dtype: "": images are converted to red, green and blue of 8 bits. Otherwise
            their values are kept: "uint8", "uint16", "float32", or "auto" for that of
            each image.
        reader: import path of a function that reads a file; "": the reader of the
            file's format.
    """

    max_pixels: int = 178_956_970
    bit_depth: int = 16
    channels: int = 3
    dtype: str = ""
    reader: str = ""


DEFAULT_DECODING = Decoding()


class Record(NamedTuple):
    """One stored image and its label.

    Attributes:
        image: an encoded image, the path of an image file, or pixels [h, w, c].
        label: class of the image, or NO_LABEL if unknown. For multi-label data, an
            integer array [c] with 1 (shown), 0 (not counted) or -1 (not shown) for
            each class.
        decoding: how the image is decoded.
        size: (height, width) of the original image in pixels, if `image` is a reduced
            one; otherwise None.
    """

    image: Stored
    label: int | np.ndarray
    decoding: Decoding = DEFAULT_DECODING
    size: tuple[int, int] | None = None

    @property
    def pixel(self) -> tuple[int, np.dtype]:
        """Number of channels and dtype of the decoded image."""
        if isinstance(self.image, np.ndarray):
            return self.image.shape[-1], self.image.dtype
        return self.decoding.channels, np.dtype(self.decoding.dtype or "uint8")


def class_of(record: Record) -> int:
    """Returns the class of an image; NO_LABEL if unknown or multi-label."""
    return NO_LABEL if np.ndim(record.label) else int(record.label)


@runtime_checkable
class ImageSource(Protocol):
    """Undecoded images, numbered 0 to n - 1; picklable for reader processes."""

    @property
    def origin(self) -> str:
        """Description of the location of the images, for error messages."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 if the images are unlabeled."""
        ...

    @property
    def largest(self) -> tuple[int, int] | None:
        """Upper bound of the image (height, width) in pixels; None if unknown."""
        ...

    def __len__(self) -> int: ...

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Returns the images with the given numbers, in the given order."""
        ...

    def name(self, i: int) -> str:
        """Name of image i, for error messages."""
        ...


class ArraySource:
    """`ImageSource` of decoded images of equal size in memory.

    Args:
        images: array [n, h, w, c], n >= 1, of the form that `decoding` describes: by
            default uint8 [n, h, w, 3], in [0, 255]. It is not copied.
        labels: integer array, converted to int32, or None. Shape [n]: the class of
            each image, NO_LABEL if unknown. Shape [n, c], multi-label: 1 if the image
            shows the class, -1 if it does not, 0 if the class is not counted.
        origin: file or folder of the arrays, for error messages.
        class_names: names of the classes, indexed by label; may be empty.
        notes: sentences about how the arrays were read, for the start of a run.
        decoding: the number of channels and the dtype.

    Raises:
        ValueError: if a dtype, a shape or the number of labels is wrong, or a label is
            out of range.
    """

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        *,
        origin: str,
        class_names: Sequence[str] = (),
        notes: Sequence[str] = (),
        decoding: Decoding = DEFAULT_DECODING,
    ):
        self.images = _checked_images(np.asarray(images), origin, decoding)
        self.labels = None
        if labels is not None:
            self.labels = _checked_labels(np.asarray(labels), len(self.images), origin)
        self.origin = origin
        self.class_names = tuple(class_names)
        self.notes = tuple(notes)
        self.decoding = decoding

    @property
    def num_classes(self) -> int:
        """Number of label columns, or the largest label plus one; 0 if unlabeled."""
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
        """Returns the images with the given numbers, in the given order."""
        labels = self.labels
        return [
            Record(
                self.images[i], NO_LABEL if labels is None else labels[i], self.decoding
            )
            for i in ids
        ]

    def name(self, i: int) -> str:
        """Name of image i, for error messages."""
        return f"image {i} of {self.origin}"


class Subset:
    """`ImageSource` of some of the images of another source.

    Args:
        source: the other source.
        ids: numbers of the images in the other source, in order, [n].
        origin: name of the subset, for error messages.
    """

    def __init__(self, source: ImageSource, ids: np.ndarray, origin: str):
        self.source, self.ids = source, np.asarray(ids)
        self.origin = origin
        self.num_classes = source.num_classes
        self.largest = source.largest
        self.canvas = getattr(source, "canvas", None)
        self.class_names = getattr(source, "class_names", ())
        self.notes = getattr(source, "notes", ())

    def __len__(self) -> int:
        return len(self.ids)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Returns the images with the given numbers, in the given order."""
        return self.source.records(self.ids[np.asarray(ids, np.intp)])

    def name(self, i: int) -> str:
        """Name of image i in the other source, for error messages."""
        return self.source.name(int(self.ids[i]))


class Joined:
    """`ImageSource` of the images of several sources with the same classes, in order.

    Args:
        sources: the sources, at least one.
    """

    def __init__(self, sources: Sequence[ImageSource]):
        self.sources = tuple(sources)
        self.origin = " and ".join(source.origin for source in self.sources)
        self.num_classes = self.sources[0].num_classes
        sizes = {source.largest for source in self.sources}
        self.largest = sizes.pop() if len(sizes) == 1 else None
        canvases = {getattr(source, "canvas", None) for source in self.sources}
        self.canvas = canvases.pop() if len(canvases) == 1 else None
        self._ends = np.cumsum([len(source) for source in self.sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Returns the images with the given numbers, in the given order."""
        return [self._at(int(i), lambda part, j: part.records([j])[0]) for i in ids]

    def name(self, i: int) -> str:
        """Name of image i in its source, for error messages."""
        return self._at(i, lambda part, j: part.name(j))

    def _at(self, i: int, read: Callable[[ImageSource, int], Any]) -> Any:
        part = int(np.searchsorted(self._ends, i, side="right"))
        source = self.sources[part]
        return read(source, i - int(self._ends[part]) + len(source))


def require_split(split: str) -> None:
    """Raises ValueError if split is not one of SPLITS."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")


def _checked_images(images: np.ndarray, origin: str, decoding: Decoding) -> np.ndarray:
    got = f"got {images.dtype} {list(images.shape)}"
    if decoding.dtype:
        if images.ndim == 3 and decoding.channels == 1:
            images = images[..., None]
        if images.ndim != 4 or images.shape[-1] != decoding.channels:
            raise ValueError(
                f"{origin}: images must be [n, h, w, {decoding.channels}], got "
                f"{list(images.shape)}; set config.data.channels to their last axis"
            )
    elif images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"{origin}: images must be uint8 [n, h, w, 3] with 0 for black and 255 for "
            f"white, {got}{_remedy(images)}"
        )
    if images.size == 0:
        raise ValueError(
            f"{origin}: images {list(images.shape)} are empty; at least one is needed"
        )
    if not decoding.dtype:
        return images
    try:
        return with_kept_values(images, decoding.dtype)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error


def _remedy(images: np.ndarray) -> str:
    """How to convert images, or the fields with which they are used as they are."""
    if images.dtype.kind not in "uif":
        return ""
    if images.ndim == 3 and images.shape[-1] == 3:
        return "; one image is images[None]"
    if images.ndim != 4:
        return ""
    channels = images.shape[-1]
    if channels > 4 and images.shape[1] in (1, 3, 4):
        return "; put the channels last: images.transpose(0, 2, 3, 1)"
    in_config = "to train on them as they are, set config.data."
    if channels != 3:
        return f"; {in_config}channels={channels}"
    if images.dtype.kind == "f":
        by = "values from 0 to 1 become bytes by (255 * images).round().astype('uint8')"
        return f"; {by}; {in_config}dtype=auto"
    return f"; {in_config}dtype=auto"


def with_kept_values(values: np.ndarray, dtype: str) -> np.ndarray:
    """Returns an array with the same values as uint8, uint16 or float32.

    Other types of numbers become float32.

    Args:
        values: numbers of any type.
        dtype: the type; "auto": any of the three.

    Raises:
        ValueError: if the type cannot hold the values, or one of them is not finite.
    """
    if values.dtype.kind not in "buif":
        raise ValueError(f"values are {values.dtype}, but must be numbers")
    if values.dtype not in (np.uint8, np.uint16):
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        # the smallest and the largest value are not numbers if any value is not
        if values.size and not np.isfinite([values.min(), values.max()]).all():
            count = np.count_nonzero(~np.isfinite(values))
            raise ValueError(
                f"{count:,} values are NaN, infinite or too large for float32; "
                "replace them, e.g. by numpy.nan_to_num"
            )
    wanted = values.dtype if dtype == "auto" else np.dtype(dtype)
    if not np.can_cast(values.dtype, wanted):
        raise ValueError(
            f"values are {values.dtype}, but those of the data set are {wanted}; "
            f"convert it, or set config.data.dtype={values.dtype} for a new run"
        )
    return values.astype(wanted, copy=False)


def _checked_labels(labels: np.ndarray, num_images: int, origin: str) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim not in (1, 2):
        raise ValueError(
            f"{origin}: labels must be integers [n] or [n, classes], numbered from 0, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) != num_images:
        raise ValueError(
            f"{origin}: {len(labels)} labels for {num_images} images; there must be "
            "one label per image"
        )
    if labels.ndim == 2 and not np.isin(labels, (-1, 0, 1)).all():
        raise ValueError(
            f"{origin}: labels [n, classes] must be 1 (shown), 0 (not counted) or -1 "
            "(not shown)"
        )
    if labels.ndim == 2 and (labels == 0).any() and not (labels == -1).any():
        raise ValueError(
            f"{origin}: labels [n, classes] have 0 (not counted) but no -1 (not "
            "shown); if 0 means not shown, use 2 * labels.astype(int) - 1; if each "
            "image has one class, use labels.argmax(1)"
        )
    if labels.ndim == 1 and labels.min() < NO_LABEL:
        raise ValueError(
            f"{origin}: label {labels.min()} is negative; number the classes from 0"
        )
    most = min(_LABEL_MAX, max(_LABEL_MAX_OF_FEW, num_images))
    if labels.max() > most:
        raise ValueError(
            f"{origin}: label {labels.max()} is too large for {num_images} images, at "
            f"most {most}; number the classes from 0 without gaps"
        )
    return labels.astype(np.int32)
