"""Decoding stored images to RGB pixels, canvases or center crops.

JPEG files are decoded by libjpeg-turbo (simplejpeg), which returns the same pixels as
Pillow in less time; other formats and unusual JPEG files are decoded by Pillow. The
EXIF orientation is applied, transparency is dropped, grayscale becomes three equal
channels, 16 bits per channel are scaled to 8, and only the first frame of an animation
is decoded.
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

_ORIENTATION = 0x0112  # EXIF tag; the value 1 means upright
# Exceptions that Pillow and its libraries raise for damaged files.
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
    """An image cannot be read or decoded; the message gives the reason."""


def decode_to_canvas(image: Stored, canvas: Size) -> tuple[Pixels, Size]:
    """Decodes an image, downscales it to the canvas and returns its original size.

    Height and width are downscaled independently, each only if it exceeds the canvas,
    so the aspect ratio may change.

    Args:
        image: pixels, an encoded image, or the path of an image file.
        canvas: (height, width) in pixels.

    Returns:
        Pixels, uint8 [h, w, 3], and the original (height, width).

    Raises:
        DecodeError: if the image cannot be decoded.
    """
    pixels, size = decode(image, at_least=canvas)
    return shrink(pixels, size, canvas), size


def shrink(
    pixels: Pixels,
    size: Size,
    canvas: Size,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Pixels:
    """Downscales decoded pixels to a canvas, along each axis that is longer.

    `size` is the original (height, width) of the image, of which the decoder may
    already have reduced the pixels.


    The default is bicubic resampling. As measured by benchmarks/canvas.py, bicubic is
    1 to 3.5 dB better than bilinear and takes a third more time; Lanczos gains another
    half decibel for another third.
    """
    height, width = min(size[0], canvas[0]), min(size[1], canvas[1])
    if pixels.shape[:2] == (height, width):
        return pixels
    # JPEG decoders scale by eighths and round up, so the last row may be fractional.
    eighths = round(8 * pixels.shape[0] / size[0])
    whole = (0, 0, size[1] * eighths / 8, size[0] * eighths / 8)
    return np.asarray(Image.fromarray(pixels).resize((width, height), resample, whole))


def center_crop(image: Stored, resize: int, crop: int) -> Pixels:
    """Resizes an image and cuts its center crop, uint8 [crop, crop, 3].

    Args:
        image: pixels, an encoded image, or the path of an image file.
        resize: short side of the resized image in pixels, resampled by Pillow's
            bicubic filter.
        crop: side of the center crop in pixels, <= resize.

    Raises:
        DecodeError: if the image cannot be decoded.

    Source: pytorch/vision@torchvision/transforms: Resize(resize, BICUBIC), then
        CenterCrop(crop), with the same rounding.
    """
    pixels, (height, width) = decode(image)
    short = min(height, width)
    height, width = int(resize * height / short), int(resize * width / short)
    bicubic = Image.Resampling.BICUBIC
    resized = Image.fromarray(pixels).resize((width, height), bicubic)
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return np.asarray(resized)[top : top + crop, left : left + crop]


def decode(image: Stored, at_least: Size | None = None) -> tuple[Pixels, Size]:
    """Decodes an image and returns its pixels and original (height, width).

    Args:
        image: pixels (returned unchanged), an encoded image, or the path of a file.
        at_least: minimal (height, width) of the result. A JPEG whose height and width
            are at least twice as large is decoded at a reduced scale: a multiple of
            1/8, at most 1/2, rounded up to whole pixels and not below the minimum.

    Raises:
        DecodeError: if the image cannot be read or decoded.
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
    """Decodes a JPEG; None if simplejpeg fails or its pixels would not be Pillow's."""
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
        return None  # Pillow accepts more files, or raises a more precise error
    return pixels, (height, width)


def _scaling(size: Size, at_least: Size) -> dict[str, Any]:
    """Arguments that make simplejpeg decode at half of `size` or less, if possible."""
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
    if picture.mode.startswith("I"):  # Pillow's conversion would clip 16 bits to white
        gray = np.clip(np.asarray(picture), 0, 2**16 - 1) // 257
        return np.repeat(gray[..., None].astype(np.uint8), 3, axis=-1)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))
