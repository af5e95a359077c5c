"""What the header of an image file states: its format, its mode and its size."""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

from logo_jax.data.decode import DAMAGE, DecodeError, decode
from logo_jax.data.eval_crops import evenly_spaced
from logo_jax.data.sources.base import ImageSource, Record

NUM_SAMPLED = 256  # images whose headers are read to know the typical size


class Header(NamedTuple):
    """What is known of a stored image without its pixels.

    Attributes:
        kind: format and mode of the file, such as "JPEG RGB"; "pixels" for arrays, and
            "encoded" for a file that another reader than Pillow reads.
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
    stored = record.image
    if not isinstance(stored, np.ndarray):
        try:
            file = io.BytesIO(stored) if isinstance(stored, bytes) else stored
            with Image.open(file) as picture:
                kind = f"{picture.format} {picture.mode}"
                height, width = record.size or (picture.height, picture.width)
                return Header(kind, height, width)
        except DAMAGE:
            pass  # damaged, or read by another reader
    try:
        _, size = decode(stored, decoding=record.decoding)
    except DecodeError:
        return None
    height, width = record.size or size
    kind = "pixels" if isinstance(stored, np.ndarray) else "encoded"
    return Header(kind, height, width)


def sample_sizes(source: ImageSource) -> Int[np.ndarray, "n 2"]:
    """Returns (height, width) of evenly spaced images of a source, in pixels.

    Images of which neither the header nor the pixels can be read are left out.
    """
    records = source.records(evenly_spaced(len(source), NUM_SAMPLED))
    found = [header for header in map(read_header, records) if header]
    return np.array([header[1:] for header in found], np.int64).reshape(-1, 2)
