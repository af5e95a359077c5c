"""Batched decoding: onto canvases for training, or to center crops for evaluation."""

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
from logo_jax.data.sources.base import ImageSource, Record, class_of

_LOGGER = logging.getLogger(__name__)
_WARNED: set[str] = set()  # images that this process has named, with the reasons


class Canvases(NamedTuple):
    """Images of any size, each on a canvas of the same size.

    Attributes:
        images: [b, h, w, c], of the dtype of the data set; each image is in the upper
            left corner of its canvas, downscaled along each axis that is longer than
            the canvas. The rest of the canvas is 0.
        sizes: (height, width) of the original images in pixels, int32 [b, 2].
        failed: bool [b]; True if the requested image cannot be decoded and has been
            replaced by the next decodable image of the source.
        labels: int32 [b], class of the image on the canvas; NO_LABEL if it is
            unlabeled or from a multi-label data set.
    """

    images: np.ndarray
    sizes: np.ndarray
    failed: np.ndarray
    labels: np.ndarray


def canvas_size(source: ImageSource, side: int) -> Size:
    """Returns the (height, width) of a canvas for the images of a source, in pixels.

    A canvas is an array of fixed size in whose upper left corner one image is stored.

    Args:
        source: image source whose images are stored. If they were reduced to a canvas
            before, it has an attribute `canvas`, the (height, width) of that one.
        side: largest height and largest width of the canvas, in pixels. Each is smaller
            if it is known that no image is that high or wide.
    """
    reduced = getattr(source, "canvas", None)
    height, width = reduced or source.largest or (side, side)
    return min(side, height), min(side, width)


def read_canvases(source: ImageSource, ids: np.ndarray, canvas: Size) -> Canvases:
    """Reads the images with the given numbers, each onto a canvas of the given size.

    Raises:
        DecodeError: if no image of the source can be decoded.
    """
    records = source.records(ids)
    images = zeros(records, len(ids), canvas)
    sizes = np.empty((len(ids), 2), np.int32)
    failed = np.zeros(len(ids), bool)
    labels = np.empty(len(ids), np.int32)
    for row, record in enumerate(records):
        try:
            pixels, sizes[row] = decode_record(record, canvas)
        except DecodeError:
            failed[row] = True
            record, (pixels, sizes[row]) = _next_decodable(
                source, int(ids[row]), canvas
            )
        images[row, : pixels.shape[0], : pixels.shape[1]] = pixels
        labels[row] = class_of(record)
    return Canvases(images, sizes, failed, labels)


def decode_record(record: Record, canvas: Size) -> tuple[Pixels, Size]:
    """Decodes an image, downscales it to a canvas and returns its original size.

    As `decode_to_canvas`, also for an image that was reduced before.
    """
    pixels, size = decode_to_canvas(record.image, canvas, record.decoding)
    return pixels, record.size or size


def zeros(records: Sequence[Record], count: int, size: Size) -> np.ndarray:
    """Returns an array [count, h, w, c] of the channels and dtype of some images."""
    channels, dtype = records[0].pixel
    return np.zeros((count, *size, channels), dtype)


def _next_decodable(
    source: ImageSource, i: int, canvas: Size
) -> tuple[Record, tuple[Pixels, Size]]:
    for step in range(1, len(source)):
        (record,) = source.records([(i + step) % len(source)])
        try:
            return record, decode_record(record, canvas)
        except DecodeError:
            continue
    raise DecodeError(f"{source.name(i)} and all other images cannot be decoded")


class EvalCropBatch(NamedTuple):
    """Batch of images for evaluation.

    Attributes:
        images: [b, s, s, c]; [b, h, w, c] if the images are not resized.
        labels: int32 [b]; int32 [b, c] for multi-label data sets.
        failed: bool [b]; True if the image cannot be decoded and is black.
    """

    images: np.ndarray
    labels: np.ndarray
    failed: np.ndarray


def read_eval_crops(
    source: ImageSource, ids: np.ndarray, *, resize: int, crop: int
) -> EvalCropBatch:
    """Reads the images with the given numbers, resized and center-cropped.

    Args:
        source: image source to read from.
        ids: numbers of the images, [b].
        resize: short side in pixels to resize to before the center crop; 0 to neither
            resize nor crop.
        crop: side of the center crop in pixels.

    Raises:
        ValueError: if `resize` is 0 and the images differ in size.
    """
    records = source.records(ids)
    failed = np.zeros(len(ids), bool)
    pixels: list[Any] = [None] * len(ids)
    for row, record in enumerate(records):
        try:
            pixels[row] = _square(record, resize, crop)
        except DecodeError:
            failed[row] = True
    size = next((found.shape[:2] for found in pixels if found is not None), (1, 1))
    images = zeros(records, len(ids), size)
    for row, found in enumerate(pixels):
        if found is not None:
            _require_same_size(found.shape[:2], size, source.name(int(ids[row])))
            images[row] = found
    labels = np.array([record.label for record in records], np.int32)
    return EvalCropBatch(images, labels, failed)


def _square(record: Record, resize: int, crop: int) -> Pixels:
    if resize:
        return center_crop(record.image, resize, crop, record.decoding, record.size)
    return decode(record.image, decoding=record.decoding)[0]


def _require_same_size(shape: Sequence[int], first: Sequence[int], which: str) -> None:
    if tuple(shape) != tuple(first):
        raise ValueError(
            f"{which} is {shape[0]}x{shape[1]}, another is {first[0]}x{first[1]}; "
            "to use images of different sizes, set resize and crop (--resize and "
            "--crop, or config.monitor.resize and .crop) to the side of the crops that "
            "the encoder was trained on, such as 32 or 224"
        )


def most_corrupt(max_fraction: float, count: int) -> float:
    """Returns how many of `count` images may be undecodable.

    One image may be so if it is at most 5 % of them, unless the fraction is 0.

    >>> most_corrupt(0.001, 5000), most_corrupt(0.001, 100), most_corrupt(0.0, 100)
    (5.0, 1, 0.0)
    """
    return max(max_fraction * count, int(max_fraction > 0 and count >= 20))


class CorruptCounter:
    """Counts undecodable images and raises an error above a limit.

    Args:
        source: image source that the images are read from.
        max_fraction: largest allowed fraction of undecodable images (`most_corrupt`).
        num_images: number of images that are read from the source; None for all.
    """

    def __init__(
        self, source: ImageSource, max_fraction: float, num_images: int | None = None
    ):
        count = len(source) if num_images is None else num_images
        self._source = source
        self._most = most_corrupt(max_fraction, count)
        self._limit = f"{max_fraction:.2%} of {count:,}"
        self._seen: set[int] = set()

    def add(self, ids: np.ndarray, failed: np.ndarray) -> None:
        """Counts the failed ids and logs each the first time that it fails.

        An image that this process has named is not named again, as by a later kNN.

        Raises:
            ValueError: if more images have failed than allowed.
        """
        for i in np.unique(ids[failed]).tolist():
            if i in self._seen:
                continue
            self._seen.add(i)
            what = f"{self._source.name(i)}: {decode_failure(self._source, i)}"
            if what not in _WARNED:
                _WARNED.add(what)
                _LOGGER.warning("skipped image %d, %s", len(self._seen), what)
            if len(self._seen) > self._most:
                raise ValueError(
                    f"{len(self._seen)} images cannot be decoded, more than "
                    f"{self._limit}; repair them and repeat the command (a run is "
                    "resumed), or give a larger config.data.max_corrupt; to list all "
                    "of them, run logo_jax.doctor with these fields and "
                    f"--damaged=FILE; the last one is {what}"
                )


def decode_failure(source: ImageSource, i: int) -> str:
    """Returns the reason why image i cannot be decoded."""
    (record,) = source.records([i])
    try:
        decode(record.image, decoding=record.decoding)
    except DecodeError as error:
        return str(error)
    return "the first attempt to read it failed"
