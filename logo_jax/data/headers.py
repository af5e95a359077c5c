"""What the header of an image file states: its format, its mode and its size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

from logo_jax.data.decode import DecodeError, decode
from logo_jax.data.eval_crops import evenly_spaced
from logo_jax.data.sources.base import ImageSource, Record

NUM_SAMPLED = 256  # images whose headers are read to know the typical size


class Header(NamedTuple):
    """What is known of a stored image without its pixels.

    Attributes:
        kind: format and mode of the file, such as "JPEG RGB"; "pixels" for arrays.
        height: height in pixels as stored, before the EXIF orientation is applied.
        width: width in pixels.
    """

    kind: str
    height: int
    width: int


def read_header(record: Record) -> Header | None:
    """Returns the header of a stored image; None if the image cannot be read.

    Images that Pillow does not know are decoded for this.
    """
    if isinstance(record.image, Path):
        try:
            with Image.open(record.image) as picture:
                kind = f"{picture.format} {picture.mode}"
                return Header(kind, picture.height, picture.width)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            pass  # damaged, or read by another reader
    try:
        _, size = decode(record.image, decoding=record.decoding)
    except DecodeError:
        return None
    height, width = record.size or size
    kind = "pixels" if isinstance(record.image, np.ndarray) else "encoded"
    return Header(kind, height, width)


def sample_sizes(source: ImageSource) -> Int[np.ndarray, "n 2"]:
    """Returns (height, width) of evenly spaced images of a source, in pixels.

    No pixels are decoded; images whose headers cannot be read are left out.
    """
    records = source.records(evenly_spaced(len(source), NUM_SAMPLED))
    found = [header for header in map(read_header, records) if header]
    return np.array([header[1:] for header in found], np.int64).reshape(-1, 2)
