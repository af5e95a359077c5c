"""Many stored images at once: on a canvas to train on, or as squares to evaluate on."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from logo_jax.data.decode import (
    DecodeError,
    Pixels,
    Size,
    center_crop,
    decode,
    decode_to_canvas,
)
from logo_jax.data.sources.base import ImageSource, Record, Stored, class_of

_LOGGER = logging.getLogger(__name__)


class Canvases(NamedTuple):
    """Images of any size as one array.

    Attributes:
        images: uint8 [b, h, w, 3]; each lies in the upper left corner, reduced where it
            is larger, the rest is black.
        sizes: int32 [b, 2]: height and width of the originals, in pixels.
        failed: bool [b]: where the image asked for cannot be decoded and the next
            sound one of the source stands in its place.
        labels: int32 [b]: class of the image that is there; NO_LABEL where it has
            none, or may show several.
    """

    images: np.ndarray
    sizes: np.ndarray
    failed: np.ndarray
    labels: np.ndarray


def canvas_size(source: ImageSource, side: int) -> Size:
    """(height, width) of the canvas: `side`, or less where no image needs as much."""
    height, width = source.largest or (side, side)
    return min(side, height), min(side, width)


def read_canvases(source: ImageSource, ids: np.ndarray, canvas: Size) -> Canvases:
    """The source's images of these numbers, each on a canvas of that size.

    Raises:
        DecodeError: if no image of the source can be decoded.
    """
    images = np.zeros((len(ids), *canvas, 3), np.uint8)
    sizes = np.empty((len(ids), 2), np.int32)
    failed = np.zeros(len(ids), bool)
    labels = np.empty(len(ids), np.int32)
    for row, record in enumerate(source.records(ids)):
        try:
            pixels, sizes[row] = decode_to_canvas(record.image, canvas)
        except DecodeError:
            failed[row] = True
            record, (pixels, sizes[row]) = _next_sound(source, int(ids[row]), canvas)
        images[row, : pixels.shape[0], : pixels.shape[1]] = pixels
        labels[row] = class_of(record)
    return Canvases(images, sizes, failed, labels)


def _next_sound(
    source: ImageSource, i: int, canvas: Size
) -> tuple[Record, tuple[Pixels, Size]]:
    for step in range(1, len(source)):
        (record,) = source.records([(i + step) % len(source)])
        try:
            return record, decode_to_canvas(record.image, canvas)
        except DecodeError:
            continue
    raise DecodeError(f"{source.name(i)} and all other images cannot be decoded")


class EvalCropBatch(NamedTuple):
    """Images to evaluate on.

    Attributes:
        images: uint8 [b, s, s, 3], or [b, h, w, 3] where they were left as they are.
        labels: int32 [b].
        failed: bool [b]: where the image cannot be decoded and is black.
    """

    images: np.ndarray
    labels: np.ndarray
    failed: np.ndarray


def read_eval_crops(
    source: ImageSource, ids: np.ndarray, *, resize: int, crop: int
) -> EvalCropBatch:
    """The source's images of these numbers, resized and cut to their centers.

    Args:
        source: of images.
        ids: numbers of images.
        resize: short side before the cut, in pixels; 0: images are left as they are.
        crop: side of the square.

    Raises:
        ValueError: where images that are left as they are differ in size.
    """
    records = source.records(ids)
    failed = np.zeros(len(ids), bool)
    pixels: list[Any] = [None] * len(ids)
    for row, record in enumerate(records):
        try:
            pixels[row] = _square(record.image, resize, crop)
        except DecodeError:
            failed[row] = True
    shape = next((found.shape for found in pixels if found is not None), (1, 1, 3))
    images = np.zeros((len(ids), *shape), np.uint8)
    for row, found in enumerate(pixels):
        if found is not None:
            _require_same_size(found.shape, shape, source.name(int(ids[row])))
            images[row] = found
    labels = np.array([record.label for record in records], np.int32)
    return EvalCropBatch(images, labels, failed)


def _square(image: Stored, resize: int, crop: int) -> Pixels:
    return center_crop(image, resize, crop) if resize else decode(image)[0]


def _require_same_size(shape: Sequence[int], first: Sequence[int], which: str) -> None:
    if tuple(shape) != tuple(first):
        raise ValueError(
            f"{which} is {shape[0]}x{shape[1]}, another is {first[0]}x{first[1]}: "
            "images of several sizes are evaluated with config.monitor.resize and "
            "config.monitor.crop, e.g. 256 and 224"
        )


class CorruptCounter:
    """Counts a source's images that cannot be decoded, and stops beyond a limit.

    Args:
        source: of the images.
        max_fraction: of the images that may fail.
        num_images: that are read of the source; all if None.
    """

    def __init__(
        self, source: ImageSource, max_fraction: float, num_images: int | None = None
    ):
        count = len(source) if num_images is None else num_images
        self._source = source
        self._most = max_fraction * count
        self._limit = f"{max_fraction:.2%} of {count:,}"
        self._seen: set[int] = set()

    def add(self, ids: np.ndarray, failed: np.ndarray) -> None:
        """Names in the log those of ids that failed for the first time.

        Raises:
            ValueError: when more have failed than may.
        """
        for i in np.unique(ids[failed]).tolist():
            if i in self._seen:
                continue
            self._seen.add(i)
            what = f"{self._source.name(i)}: {decode_failure(self._source, i)}"
            _LOGGER.warning("skipped image %d, %s", len(self._seen), what)
            if len(self._seen) > self._most:
                raise ValueError(
                    f"{len(self._seen)} images cannot be decoded, more than "
                    f"{self._limit}; mend them, or train in another workdir without "
                    f"them or with a larger config.data.max_corrupt; the last is {what}"
                )


def decode_failure(source: ImageSource, i: int) -> str:
    """Why an image cannot be decoded."""
    (record,) = source.records([i])
    try:
        decode(record.image)
    except DecodeError as error:
        return str(error)
    return "it could not be read a moment ago"
