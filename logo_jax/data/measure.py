"""Measures the values of images: their type, range, and statistics of each channel."""

import functools
from typing import NamedTuple

import numpy as np

from logo_jax.data.decode import DecodeError, decode
from logo_jax.data.eval_crops import evenly_spaced, in_chunks
from logo_jax.data.sources.base import ImageSource

# Most images that are measured: encoded ones are decoded for this, arrays are not.
MOST_ENCODED, MOST_ARRAYS = 1_000, 100_000
_KINDS = ("uint8", "uint16", "float32")  # each holds the values of those before it


class Measured(NamedTuple):
    """What the values of some images of a source are.

    Attributes:
        dtype: "uint8", "uint16" or "float32".
        lowest: smallest value.
        highest: largest value.
        mean: mean of each channel over all pixels, float64 [c]. With a value range,
            the values are scaled from it to [0, 1] and clipped before.
        std: standard deviation of each channel, of the same values, float64 [c].
        num_images: number of images that were measured.
        total: number of images of the source.
    """

    dtype: str
    lowest: float
    highest: float
    mean: np.ndarray
    std: np.ndarray
    num_images: int
    total: int

    @property
    def extent(self) -> str:
        """How many images were measured."""
        if self.num_images == self.total:
            return f"measured over all {self.total:,} images"
        return (
            f"measured over {self.num_images:,} of {self.total:,} images, evenly spaced"
        )


class _Sums(NamedTuple):
    """Sums over the pixels of images; the numbers of pixels and of images."""

    dtype: str
    lowest: float
    highest: float
    sums: np.ndarray
    squares: np.ndarray
    pixels: int
    images: int

    def __add__(self, other: "_Sums") -> "_Sums":  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Sums(
            max(self.dtype, other.dtype, key=_KINDS.index),
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.sums + other.sums,
            self.squares + other.squares,
            self.pixels + other.pixels,
            self.images + other.images,
        )


def measure(
    source: ImageSource, value_range: tuple[float, ...] = (), *, threads: int = 0
) -> Measured:
    """Measures the values of the images of a source, or of an evenly spaced part.

    Images that cannot be decoded are left out.

    Args:
        source: image source to read from.
        value_range: the values that become 0 and 1; empty for statistics of the values
            as they are stored.
        threads: number of decoding threads; 0 for one per core.

    Raises:
        ValueError: if none of the images can be decoded.
    """
    (first,) = source.records([0])
    most = MOST_ARRAYS if isinstance(first.image, np.ndarray) else MOST_ENCODED
    ids = evenly_spaced(len(source), min(most, len(source)))
    read = functools.partial(_sums, source, value_range)
    parts = [part for _, part in in_chunks(read, ids, threads)]
    found = [sums for part in parts for sums in part if isinstance(sums, _Sums)]
    if not found:
        reasons = [reason for part in parts for reason in part]
        raise ValueError(
            f"none of {len(ids):,} images of {source.origin} can be used, such as "
            f"{reasons[0]}"
        )
    total = found[0]
    for sums in found[1:]:
        total += sums
    mean = total.sums / total.pixels
    variance = np.maximum(total.squares / total.pixels - mean**2, 0.0)
    return Measured(
        total.dtype,
        total.lowest,
        total.highest,
        mean,
        np.sqrt(variance),
        total.images,
        len(source),
    )


def _sums(
    source: ImageSource, value_range: tuple[float, ...], ids: np.ndarray
) -> list[_Sums | str]:
    """Returns the sums of the images, and the reasons of those that cannot be used."""
    total, reasons = None, []
    for i, record in zip(ids.tolist(), source.records(ids), strict=True):
        try:
            pixels, _ = decode(record.image, decoding=record.decoding)
        except DecodeError as error:
            reasons.append(f"{source.name(i)}: {error}")
            continue
        sums = _of_image(pixels, value_range)
        total = sums if total is None else total + sums
    return reasons if total is None else [total]


def _of_image(pixels: np.ndarray, value_range: tuple[float, ...]) -> _Sums:
    flat = pixels.reshape(-1, pixels.shape[-1]).astype(np.float64)
    lowest, highest = float(flat.min()), float(flat.max())
    if value_range:
        low, high = value_range
        flat = np.clip((flat - low) / (high - low), 0.0, 1.0)
    return _Sums(
        pixels.dtype.name,
        lowest,
        highest,
        flat.sum(0),
        np.square(flat).sum(0),
        len(flat),
        1,
    )
