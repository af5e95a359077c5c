"""Decoding stored images to RGB pixels, canvases or center crops.

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
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps

from logo_jax.data.sources.base import DEFAULT_DECODING, Decoding, Stored

Pixels = UInt8[np.ndarray, "h w 3"]
Size = tuple[int, int]  # height, width

_ORIENTATION = 0x0112  # EXIF tag; the value 1 means upright
_BITS_PER_SAMPLE = 0x0102  # TIFF tag
# Formats of which Pillow reads only the header, or which another program would draw.
_NOT_DECODED = {"MPEG", "EPS"}
_SCALED = ("PPM", "JPEG2000")  # Pillow itself scales their gray values to 16 bits
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
        Pixels, uint8 [h, w, 3], and the original (height, width).

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


def center_crop(
    image: Stored, resize: int, crop: int, decoding: Decoding = DEFAULT_DECODING
) -> Pixels:
    """Resizes an image and cuts its center crop, uint8 [crop, crop, 3].

    Args:
        image: pixels, an encoded image, or the path of an image file.
        resize: short side of the resized image in pixels, resampled by Pillow's
            bicubic filter.
        crop: side of the center crop in pixels, <= resize.
        decoding: how the image is decoded.

    Raises:
        DecodeError: if the image cannot be decoded.

    Source: pytorch/vision@torchvision/transforms: Resize(resize, BICUBIC), then
        CenterCrop(crop), with the same rounding.
    """
    pixels, (height, width) = decode(image, decoding=decoding)
    short = min(height, width)
    height, width = int(resize * height / short), int(resize * width / short)
    bicubic = Image.Resampling.BICUBIC
    resized = Image.fromarray(pixels).resize((width, height), bicubic)
    top, left = round((height - crop) / 2), round((width - crop) / 2)
    return np.asarray(resized)[top : top + crop, left : left + crop]


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
        encoded = image.read_bytes() if isinstance(image, Path) else image
        return _by_simplejpeg(encoded, at_least, decoding) or _by_pillow(
            encoded, decoding
        )
    except _DAMAGE as error:
        raise DecodeError(" ".join(str(error).split())) from error


def white_and_largest(
    image: Stored, decoding: Decoding = DEFAULT_DECODING
) -> tuple[int, float] | None:
    """Returns the value that becomes 255, and the largest value, of an image.

    None if the image has 8 bits per value or cannot be read; only its header is decoded
    then.
    """
    if isinstance(image, np.ndarray):
        return None
    try:
        encoded = image.read_bytes() if isinstance(image, Path) else image
        with _opened(encoded, decoding) as picture:
            if not _is_deep(picture):
                return None
            return _white(picture, decoding), float(np.max(np.asarray(picture)))
    except _DAMAGE:
        return None


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


def _is_turned(encoded: bytes, decoding: Decoding) -> bool:
    if b"Exif\0\0" not in encoded[:4096]:
        return False
    with _opened(encoded, decoding) as picture:
        return picture.getexif().get(_ORIENTATION, 1) != 1


def _opened(encoded: bytes, decoding: Decoding) -> Image.Image:
    """Reads the header of an image; raises ValueError if it has too many pixels."""
    most = decoding.max_pixels
    limit = Image.MAX_IMAGE_PIXELS  # Pillow raises an error above twice this number
    if limit is not None and most > 2 * limit:
        Image.MAX_IMAGE_PIXELS = most
    try:
        picture = Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"more than config.data.max_pixels={most:,}: {error}"
        ) from None
    if picture.width * picture.height > most:
        raise ValueError(
            f"its {picture.width}x{picture.height} px are more than "
            f"config.data.max_pixels={most:,}; set a larger number to use it"
        )
    return picture


def _by_pillow(encoded: bytes, decoding: Decoding) -> tuple[Pixels, Size]:
    with _opened(encoded, decoding) as picture:
        white = _white(picture, decoding)
        pixels = _rgb(ImageOps.exif_transpose(picture), white)
    return pixels, (pixels.shape[0], pixels.shape[1])


def _is_deep(picture: Image.Image) -> bool:
    """Whether an image has more than 8 bits per value."""
    return picture.mode.startswith("I") or picture.mode == "F"


def _white(picture: Image.Image, decoding: Decoding) -> int:
    """Returns the value that is white in an image of more than 8 bits per value."""
    if picture.mode == "F":
        return 1
    bits = 16 if picture.format in _SCALED else decoding.bit_depth
    tags = getattr(picture, "tag_v2", {})
    return 2 ** min(bits, *tags.get(_BITS_PER_SAMPLE, (bits,))) - 1


def _rgb(picture: Image.Image, white: int) -> Pixels:
    if _is_deep(picture):  # Pillow's conversion would clip values above 255
        return np.repeat(_scaled(np.asarray(picture), white)[..., None], 3, axis=-1)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))


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
