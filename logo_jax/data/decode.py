"""Decoding stored images to pixels, canvases or center crops.

By default images become RGB pixels of 8 bits, as described here. `readers` keeps other
channels and values as they are stored.

JPEG files are decoded by libjpeg-turbo (simplejpeg), which returns the same pixels as
Pillow in less time; other formats and unusual JPEG files are decoded by Pillow. The
EXIF orientation is applied, transparency is dropped, grayscale becomes three equal
channels, and only the first frame of an animation is decoded.

Values of more than 8 bits are scaled to [0, 255] as the file's type defines them. Gray
images of 16 bits: 65,535 is white, or 2**bit_depth - 1 in PNG and TIFF files if
`Decoding.bit_depth` is smaller, or if the TIFF file has fewer bits. Floating-point
images: 1 is white. An image with a value beyond white is not decoded, because its scale
is unknown. Of color images with 16 bits per channel, Pillow reads the upper 8.
"""

import functools
import importlib
import importlib.util
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Shaped
from PIL import Image, ImageFile

from logo_jax.data import readers
from logo_jax.data.readers import as_rgb, is_deep, open_picture
from logo_jax.data.sources.base import (
    DEFAULT_DECODING,
    Decoding,
    Stored,
    with_kept_values,
)

Pixels = Shaped[np.ndarray, "h w c"]  # uint8, uint16 or float32
Size = tuple[int, int]  # height, width

_BITS_PER_SAMPLE = 0x0102  # TIFF tag
# Formats of which Pillow reads only the header, or which another program would draw.
_NOT_DECODED = {"MPEG", "EPS"}
_SCALED = ("PPM", "JPEG2000")  # Pillow itself scales their gray values to 16 bits
# Exceptions that Pillow and its libraries raise for damaged files.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    RuntimeError,  # of AVIF; also NotImplementedError, of DDS and BLP
)


class DecodeError(ValueError):
    """An image cannot be read or decoded; the message gives the reason."""


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Returns the suffixes, in lower case, of the files that can be decoded.

    They are those of Pillow's formats and of the plugins that are imported.
    """
    Image.preinit()
    Image.init()
    readable = {
        name
        for name, (plugin, _) in Image.OPEN.items()
        if name not in _NOT_DECODED
        and not (
            isinstance(plugin, type) and issubclass(plugin, ImageFile.StubImageFile)
        )
    }
    readable.add("MPO")  # opened as JPEG
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, name in suffixes.items() if name in readable)


def register_plugins() -> None:
    """Makes Pillow read HEIC files, if pillow-heif is installed."""
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()


register_plugins()  # in every process that decodes


def decode_to_canvas(
    image: Stored, canvas: Size, decoding: Decoding = DEFAULT_DECODING
) -> tuple[Pixels, Size]:
    """Decodes an image, downscales it to the canvas and returns its original size.

    Height and width are downscaled independently, each only if it exceeds the canvas,
    so the aspect ratio may change.

    Args:
        image: pixels, an encoded image, or the path of an image file.
        canvas: (height, width) in pixels.
        decoding: how the image is decoded.

    Returns:
        Pixels, [h, w, c], and the original (height, width).

    Raises:
        DecodeError: if the image cannot be decoded.
    """
    pixels, size = decode(image, at_least=canvas, decoding=decoding)
    return shrink(pixels, size, canvas), size


def shrink(
    pixels: Pixels,
    size: Size,
    canvas: Size,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Pixels:
    """Downscales decoded pixels to a canvas, along each axis that is longer.

    Args:
        pixels: [h, w, c]; the decoder may already have reduced them.
        size: original (height, width) of the image in pixels.
        canvas: (height, width) of the canvas in pixels.
        resample: filter. As measured by benchmarks/canvas.py, bicubic is 1 to 3.5 dB
            better than bilinear and takes a third more time; Lanczos gains another half
            decibel for another third.
    """
    height, width = min(size[0], canvas[0]), min(size[1], canvas[1])
    if pixels.shape[:2] == (height, width):
        return pixels
    # JPEG decoders scale by eighths and round up, so the last row may be fractional.
    eighths = round(8 * pixels.shape[0] / size[0])
    whole = (0, 0, size[1] * eighths / 8, size[0] * eighths / 8)
    return _resized(pixels, (height, width), resample, whole)


def _resized(
    pixels: Pixels,
    size: Size,
    resample: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """Resizes pixels to a (height, width); a channel has no effect on the others."""

    def resized(image: np.ndarray) -> np.ndarray:
        height, width = size
        return np.asarray(Image.fromarray(image).resize((width, height), resample, box))

    if pixels.dtype == np.uint8 and pixels.shape[-1] == 3:
        return resized(pixels)
    kept = np.uint8 if pixels.dtype == np.uint8 else np.float32
    planes = np.moveaxis(pixels, -1, 0).astype(kept)
    result = np.stack([resized(plane) for plane in planes], axis=-1)
    if pixels.dtype == np.uint16:
        return np.clip(np.round(result), 0, 2**16 - 1).astype(np.uint16)
    return result


def center_crop(
    image: Stored,
    resize: int,
    crop: int,
    decoding: Decoding = DEFAULT_DECODING,
    original: Size | None = None,
) -> Pixels:
    """Resizes an image and cuts its center crop, [crop, crop, c].

    Args:
        image: pixels, an encoded image, or the path of an image file.
        resize: short side of the resized image in pixels, resampled by Pillow's
            bicubic filter.
        crop: side of the center crop in pixels, <= resize.
        decoding: how the image is decoded.
        original: (height, width) of the original image, if `image` is a reduced one:
            the crop shows the same part of it, with its aspect ratio.

    Raises:
        DecodeError: if the image cannot be decoded.

    Source: pytorch/vision@torchvision/transforms: Resize(resize, BICUBIC), then
        CenterCrop(crop), with the same rounding.
    """
    pixels, size = decode(image, decoding=decoding)
    height, width = original or size
    short = min(height, width)
    height, width = int(resize * height / short), int(resize * width / short)
    resized = _resized(pixels, (height, width), Image.Resampling.BICUBIC)
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return resized[top : top + crop, left : left + crop]


def decode(
    image: Stored, at_least: Size | None = None, decoding: Decoding = DEFAULT_DECODING
) -> tuple[Pixels, Size]:
    """Decodes an image and returns its pixels and original (height, width).

    Args:
        image: pixels (returned unchanged), an encoded image, or the path of a file.
        at_least: minimal (height, width) of the result. A JPEG whose height and width
            are at least twice as large is decoded at a reduced scale: a multiple of
            1/8, at most 1/2, rounded up to whole pixels and not below the minimum.
        decoding: how the image is decoded.

    Raises:
        DecodeError: if the image cannot be read or decoded.
    """
    if isinstance(image, np.ndarray):
        return image, (image.shape[0], image.shape[1])
    try:
        if decoding.dtype:
            return _kept(image, at_least, decoding)
        encoded = image.read_bytes() if isinstance(image, Path) else image
        return _by_simplejpeg(encoded, at_least, decoding) or _by_pillow(
            encoded, decoding
        )
    except DAMAGE as error:
        raise DecodeError(" ".join(str(error).split())) from error


def white_and_largest(
    image: Stored, decoding: Decoding = DEFAULT_DECODING
) -> tuple[int, float] | None:
    """Returns the value that becomes 255, and the largest value, of an image.

    None if the image has 8 bits per value, if its values are kept, or if it cannot be
    read; only its header is decoded then.
    """
    if isinstance(image, np.ndarray) or decoding.dtype:
        return None
    try:
        encoded = image.read_bytes() if isinstance(image, Path) else image
        with open_picture(encoded, decoding) as picture:
            if not is_deep(picture):
                return None
            return _white(picture, decoding), float(np.max(np.asarray(picture)))
    except DAMAGE:
        return None


def _kept(
    image: bytes | Path, at_least: Size | None, decoding: Decoding
) -> tuple[Pixels, Size]:
    """Decodes an image with its own channels and values."""
    if decoding.channels in (1, 3) and not decoding.reader:
        image = image.read_bytes() if isinstance(image, Path) else image
        if found := _by_simplejpeg(image, at_least, decoding):
            return with_kept_values(found[0], decoding.dtype), found[1]
    pixels = readers.read(image, decoding)
    return pixels, (pixels.shape[0], pixels.shape[1])


def _by_simplejpeg(
    encoded: bytes, at_least: Size | None, decoding: Decoding
) -> tuple[Pixels, Size] | None:
    """Decodes a JPEG; None if simplejpeg fails or its pixels would not be Pillow's."""
    if not encoded.startswith(b"\xff\xd8") or _is_turned(encoded, decoding):
        return None
    try:
        *sides, colors, _ = simplejpeg.decode_jpeg_header(encoded)
        height, width = map(int, sides)
        if colors in ("CMYK", "YCCK") or height * width > decoding.max_pixels:
            return None
        gray = decoding.channels == 1
        if gray and colors != "Gray":
            return None
        pixels = simplejpeg.decode_jpeg(
            encoded,
            colorspace="GRAY" if gray else "RGB",
            **_scaling((height, width), at_least or (height, width)),
        )
    except ValueError:
        return None  # Pillow accepts more files, or raises a more precise error
    return pixels, (height, width)


def _scaling(size: Size, at_least: Size) -> dict[str, Any]:
    """Arguments that make simplejpeg decode at half of `size` or less, if possible."""
    if size[0] < 2 * at_least[0] or size[1] < 2 * at_least[1]:
        return {}
    return {"min_height": at_least[0], "min_width": at_least[1], "min_factor": 2}


def _is_turned(encoded: bytes, decoding: Decoding) -> bool:
    if b"Exif\0\0" not in encoded[:4096]:
        return False
    with open_picture(encoded, decoding) as picture:
        return readers.orientation(picture) != 1


def _by_pillow(encoded: bytes, decoding: Decoding) -> tuple[Pixels, Size]:
    with open_picture(encoded, decoding) as picture:
        white = _white(picture, decoding)
        pixels = _rgb(readers.upright(picture), white)
    return pixels, (pixels.shape[0], pixels.shape[1])


def _white(picture: Image.Image, decoding: Decoding) -> int:
    """Returns the value that is white in an image of more than 8 bits per value."""
    if picture.mode == "F":
        return 1
    bits = 16 if picture.format in _SCALED else decoding.bit_depth
    tags = getattr(picture, "tag_v2", {})
    return 2 ** min(bits, *tags.get(_BITS_PER_SAMPLE, (bits,))) - 1


def _rgb(picture: Image.Image, white: int) -> Pixels:
    if is_deep(picture):  # Pillow's conversion would clip values above 255
        return np.repeat(_scaled(np.asarray(picture), white)[..., None], 3, axis=-1)
    return as_rgb(picture)


def _scaled(gray: np.ndarray, white: int) -> np.ndarray:
    """Scales gray values from [0, white] to [0, 255]; refuses other values."""
    low, high = gray.min(), gray.max()
    if not (low >= 0 and high <= white):  # also true if a value is not a number
        remedy = "convert it" if white == 1 else "convert it, or set data.bit_depth"
        raise ValueError(
            f"its values from {low:g} to {high:g} must be from 0 to {white:g}; {remedy}"
        )
    if white == 1:
        return np.round(255 * gray).astype(np.uint8)
    return (gray.astype(np.uint32) * 255 // white).astype(np.uint8)
