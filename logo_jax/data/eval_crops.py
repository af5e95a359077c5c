"""Center crops for evaluation, and decoding of whole data sets into memory."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from logo_jax.data.canvas import (
    CorruptCounter,
    read_canvases,
    read_eval_crops,
    zeros,
)
from logo_jax.data.decode import DecodeError, Size, decode, white_and_largest
from logo_jax.data.prefetch import read_ahead
from logo_jax.data.sources.base import NO_LABEL, ArraySource, ImageSource

_READ_AT_ONCE = 256
_LOOKED_AT = 16  # images
_KEPT_BYTES = 2 * 2**30


def read_all(
    source: ImageSource, canvas: Size, *, max_corrupt: float, threads: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decodes all images of a source onto canvases.

    Args:
        source: image source to read from.
        canvas: (height, width) in pixels.
        max_corrupt: largest allowed fraction of undecodable images.
        threads: number of decoding threads; 0 for one per core.

    Returns:
        Canvases [n, h, w, c], original sizes int32 [n, 2] and classes int32 [n];
        see `Canvases`.

    Raises:
        ValueError: if more images are undecodable than allowed.
    """
    if isinstance(source, ArraySource) and canvas == source.largest:
        sizes = np.tile(np.array(canvas, np.int32), (len(source), 1))
        return source.images, sizes, _classes(source)
    images = zeros(source.records([0]), len(source), canvas)
    sizes = np.empty((len(source), 2), np.int32)
    labels = np.empty(len(source), np.int32)
    skipped = CorruptCounter(source, max_corrupt)
    read = functools.partial(read_canvases, source, canvas=canvas)
    for ids, part in in_chunks(read, np.arange(len(source)), threads):
        skipped.add(ids, part.failed)
        images[ids], sizes[ids], labels[ids] = part.images, part.sizes, part.labels
    return images, sizes, labels


def _classes(source: ArraySource) -> np.ndarray:
    """Classes of all images, in the form of `Canvases.labels`."""
    if source.labels is None or source.labels.ndim > 1:
        return np.full(len(source), NO_LABEL, np.int32)
    return source.labels


def decode_all(
    source: ImageSource, *, max_corrupt: float, threads: int = 0
) -> ArraySource:
    """Decodes images of equal size into memory, without the undecodable ones.

    Raises:
        ValueError: if more images are undecodable than allowed, or the sizes differ.
    """
    if isinstance(source, ArraySource):
        return source
    parts = list(
        EvalCrops(
            source, np.arange(len(source)), max_corrupt, threads=threads
        ).batches()
    )
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    labels = labels if source.num_classes else None
    (first,) = source.records([0])
    return ArraySource(images, labels, origin=source.origin, decoding=first.decoding)


def damaged(source: ImageSource, *, threads: int = 0) -> Iterator[str]:
    """Yields the name of each image that cannot be decoded, and the reason.

    Args:
        source: image source to read from.
        threads: number of decoding threads; 0 for one per core.
    """

    def failures(ids: np.ndarray) -> list[str]:
        found = []
        for i, record in zip(ids.tolist(), source.records(ids), strict=True):
            try:
                decode(record.image, decoding=record.decoding)
            except DecodeError as error:
                found.append(f"{source.name(i)}: {error}")
        return found

    for _, found in in_chunks(failures, np.arange(len(source)), threads):
        yield from found


@dataclasses.dataclass(frozen=True)
class EvalCrops:
    """Labeled images for evaluation; small sets are decoded once and kept in memory.

    Attributes:
        source: image source to read from.
        ids: numbers of the images to evaluate on.
        max_corrupt: largest allowed fraction of undecodable images, which are skipped.
        resize: short side in pixels to resize to before the center crop; 0 to neither
            resize nor crop.
        crop: side of the center crop in pixels.
        threads: number of decoding threads; 0 for one per core.
    """

    source: ImageSource
    ids: np.ndarray
    max_corrupt: float
    resize: int = 0
    crop: int = 0
    threads: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images, [b, h, w, c], and labels, int32 [b].

        Raises:
            ValueError: if more images are undecodable than allowed, or the sizes
                differ.
        """
        whole = self.source.largest or (0, 0)
        height, width = (self.crop, self.crop) if self.crop else whole
        (first,) = self.source.records(self.ids[:1])
        channels, dtype = first.pixel
        if len(self) * height * width * channels * dtype.itemsize > _KEPT_BYTES:
            yield from self._read()
        else:
            yield from self._kept

    @functools.cached_property
    def _kept(self):
        return list(self._read())

    def _read(self):
        skipped = CorruptCounter(self.source, self.max_corrupt, len(self))
        read = functools.partial(
            read_eval_crops, self.source, resize=self.resize, crop=self.crop
        )
        for ids, part in in_chunks(read, self.ids, self.threads):
            skipped.add(ids, part.failed)
            if not part.failed.all():  # if all failed, the image size is unknown
                yield part.images[~part.failed], part.labels[~part.failed]


def evenly_spaced(num_images: int, limit: int) -> np.ndarray:
    """Returns `limit` evenly spaced image numbers, or all if limit is 0.

    >>> evenly_spaced(10, 4)
    array([0, 2, 5, 7])
    """
    count = min(limit or num_images, num_images)
    return np.arange(count) * num_images // count


def depth_notes(source: ImageSource) -> list[str]:
    """Returns a sentence about images of more than 8 bits per value, among a few.

    It states how values become 8 bits, and the largest value, because images that use
    fewer bits than their files have become nearly black.
    """
    records = source.records(evenly_spaced(len(source), _LOOKED_AT))
    found = [white_and_largest(record.image, record.decoding) for record in records]
    # NaN and infinity are reported when the image is decoded
    deep = [values for values in found if values and math.isfinite(values[1])]
    if not deep:
        return []
    white, largest = max(deep)
    bits = int(largest).bit_length()
    fewer = f"; if they use {bits} bits, set config.data.bit_depth={bits}"
    return [
        f"{len(deep)} of {len(records)} images that were looked at have more than 8 "
        f"bits per value: {white} becomes 255, and their largest value, {largest:g}, "
        f"becomes {255 * largest // white:.0f}"
        + (fewer if 8 < bits < white.bit_length() else "")
    ]


def in_chunks(
    read: Callable[[np.ndarray], Any], ids: np.ndarray, threads: int
) -> Iterator[tuple[np.ndarray, Any]]:
    """Splits ids into chunks and yields each chunk with read(chunk), in order.

    The chunks are read ahead by threads; 0 for one per core, at most 16.
    """

    def chunk(i: int) -> np.ndarray:
        return ids[i * _READ_AT_ONCE : (i + 1) * _READ_AT_ONCE]

    numbers = range(-(-len(ids) // _READ_AT_ONCE))
    reading = read_ahead(lambda i: read(chunk(i)), numbers, threads=threads)
    with contextlib.closing(reading):
        for i, part in enumerate(reading):
            yield chunk(i), part
