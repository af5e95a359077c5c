"""From a stored image to RGB pixels: decoded, fitted to a canvas, or cut to a square.

JPEG goes through libjpeg-turbo (simplejpeg), which gives Pillow's pixels in less time;
all else, and all that is unusual, through Pillow. An orientation in the image's EXIF
data is applied; transparency is dropped; gray becomes three equal channels; 16 bits a
channel are scaled down to 8; of an animation, the first frame.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps

from logo_jax.data.sources.base import Stored

Pixels = UInt8[np.ndarray, "h w 3"]
Size = tuple[int, int]  # height, width

_ORIENTATION = 0x0112  # EXIF's tag; 1: upright
# What Pillow and the libraries under it raise for damaged files.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class DecodeError(ValueError):
    """An image that cannot be read or decoded; says why."""


def decode_to_canvas(image: Stored, canvas: Size) -> tuple[Pixels, Size]:
    """The image, reduced where it exceeds the canvas, and its original size.

    Each axis is reduced to the canvas's by itself, so an image's shape may change, and
    kept as it is where it is no longer than the canvas's.

    Args:
        image: to decode.
        canvas: (height, width), in pixels.

    Raises:
        DecodeError: if it cannot be decoded.
    """
    pixels, size = decode(image, at_least=canvas)
    return shrink(pixels, size, canvas), size


def shrink(
    pixels: Pixels,
    size: Size,
    canvas: Size,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Pixels:
    """Decoded pixels of an image of the given original size, reduced to a canvas.

    Bicubic by measurement (benchmarks/canvas.py): 1 to 3.5 dB above bilinear for a
    third more time; Lanczos adds half a decibel for another third.
    """
    height, width = min(size[0], canvas[0]), min(size[1], canvas[1])
    if pixels.shape[:2] == (height, width):
        return pixels
    # JPEG's own scaling is by eighths and rounds up: the last row may be half a row.
    eighths = round(8 * pixels.shape[0] / size[0])
    whole = (0, 0, size[1] * eighths / 8, size[0] * eighths / 8)
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample, whole))


def center_crop(image: Stored, resize: int, crop: int) -> Pixels:
    """The center of the image once its short side is `resize`: uint8 [crop, crop, 3].

    Args:
        image: to decode.
        resize: short side of the whole image, in pixels, resampled by Pillow's bicubic.
        crop: side of the square, in pixels, <= resize.

    Raises:
        DecodeError: if it cannot be decoded.

    Source: pytorch/vision@torchvision/transforms: Resize(resize, BICUBIC), then
        CenterCrop(crop), with their rounding.
    """
    pixels, (height, width) = decode(image)
    short = min(height, width)
    height, width = int(resize * height / short), int(resize * width / short)
    bicubic = Image.Resampling.BICUBIC
    resized = Image.fromarray(pixels).resize((width, height), bicubic)
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return np.asarray(resized)[top : top + crop, left : left + crop]


def decode(image: Stored, at_least: Size | None = None) -> tuple[Pixels, Size]:
    """The image's pixels and its original size.

    Args:
        image: pixels, which are returned as they are, an encoded image, or a file.
        at_least: (height, width) that will do: a JPEG of twice that or more is decoded
            at a half of its size or less (eighths, rounded up), no smaller than that.

    Raises:
        DecodeError: if it cannot be read or decoded.
    """
    if isinstance(image, np.ndarray):
        return image, (image.shape[0], image.shape[1])
    try:
        encoded = image.read_bytes() if isinstance(image, Path) else image
        decoded = _by_simplejpeg(encoded, at_least) or _by_pillow(encoded)
    except _DAMAGE as error:
        raise DecodeError(" ".join(str(error).split())) from error
    return decoded


def _by_simplejpeg(encoded: bytes, at_least: Size | None) -> tuple[Pixels, Size] | None:
    """As decode; None for what simplejpeg cannot do, or would not do as Pillow does."""
    if not encoded.startswith(b"\xff\xd8") or _is_turned(encoded):
        return None
    try:
        *sides, colors, _ = simplejpeg.decode_jpeg_header(encoded)
        if colors in ("CMYK", "YCCK"):
            return None
        height, width = map(int, sides)
        pixels = simplejpeg.decode_jpeg(
            encoded, **_scaling((height, width), at_least or (height, width))
        )
    except ValueError:
        return None  # Pillow bears more, or tells what is wrong
    return pixels, (height, width)


def _scaling(size: Size, at_least: Size) -> dict[str, Any]:
    """What makes simplejpeg decode at a half of `size` or less, where that will do."""
    if size[0] < 2 * at_least[0] or size[1] < 2 * at_least[1]:
        return {}
    return {"min_height": at_least[0], "min_width": at_least[1], "min_factor": 2}


def _is_turned(encoded: bytes) -> bool:
    if b"Exif\0\0" not in encoded[:4096]:
        return False
    with Image.open(io.BytesIO(encoded)) as picture:
        return picture.getexif().get(_ORIENTATION, 1) != 1


def _by_pillow(encoded: bytes) -> tuple[Pixels, Size]:
    with Image.open(io.BytesIO(encoded)) as picture:
        pixels = _rgb(ImageOps.exif_transpose(picture))
    return pixels, (pixels.shape[0], pixels.shape[1])


def _rgb(picture: Image.Image) -> Pixels:
    if picture.mode.startswith("I"):  # Pillow's own conversion clips 16 bits to white
        gray = np.clip(np.asarray(picture), 0, 2**16 - 1) // 257
        return np.repeat(gray[..., None].astype(np.uint8), 3, axis=-1)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))
