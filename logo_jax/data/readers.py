"""Readers of files whose values and channels are kept as they are stored.

`READERS` has a reader for each kind of file, which is known by its first bytes; what no
row knows is read by Pillow. A TIFF file may have its channels as pages. A function of
the user's, `config.data.reader`, replaces the table.
"""

import functools
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from logo_jax.configs import import_object
from logo_jax.data.sources.base import Decoding, with_kept_values

FIELD = "config.data.reader"
# Formats of 16 bits that Pillow may open as 32 bits.
_SIXTEEN = ("PNG", "PPM", "JPEG2000")
_ORIENTATION = 0x0112  # EXIF tag; the value 1 is upright
_SUBFILE_TYPE = 254  # TIFF tag; the bits 1 and 4 are a smaller copy and a mask
_PNG = b"\x89PNG\r\n\x1a\n"
_SEVERAL = (2, 4, 6)  # kinds of PNG with several channels: color, or transparency


class Reader(NamedTuple):
    """Reads one kind of file.

    Attributes:
        suffixes: suffixes of the files in lower case that Pillow does not know.
        knows: whether bytes are those of a file of this kind.
        read: returns the values, [h, w], [h, w, c] or [c, h, w], of a file's bytes.
    """

    suffixes: tuple[str, ...]
    knows: Callable[[bytes], bool]
    read: Callable[[bytes, Decoding], np.ndarray]


def read(image: bytes | Path, decoding: Decoding) -> np.ndarray:
    """Returns the values of an image as they are stored.

    Args:
        image: an encoded image, or the path of a file.
        decoding: the number of channels and the dtype, which is not "".

    Returns:
        uint8, uint16 or float32 [h, w, c].

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it cannot be decoded, or has other channels or values.
    """
    if decoding.reader:
        values = _by_own_reader(image, decoding.reader)
    else:
        encoded = image.read_bytes() if isinstance(image, Path) else image
        known = (reader.read for reader in READERS if reader.knows(encoded))
        values = next(known, _pillow)(encoded, decoding)
    return with_kept_values(as_image(values, decoding.channels), decoding.dtype)


def as_image(values: Any, channels: int) -> np.ndarray:
    """Returns values [h, w], [h, w, c], [c, h, w] or pages [p, h, w, c] as [h, w, c].

    A gray image gets three equal channels if three are wanted.

    Raises:
        ValueError: if the number of channels is another one.
    """
    values = np.asarray(values)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    shape = list(values.shape)
    if values.ndim == 4:  # the channels of all pages, one page after another
        values = np.moveaxis(values, 0, 2).reshape(*shape[1:3], -1)
    elif values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3 and values.shape[-1] != channels == len(values):
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 3 and values.shape[-1] == 1 and channels == 3:
        values = np.repeat(values, 3, axis=-1)
    if values.ndim != 3 or values.shape[-1] != channels or not values.size:
        raise ValueError(
            f"an image {shape} must be [h, w, {channels}] or [{channels}, h, w] for "
            f"config.data.channels={channels}; convert it, or set the number that it "
            "has"
        )
    return np.ascontiguousarray(values)


def suffixes(decoding: Decoding) -> tuple[str, ...] | None:
    """Returns the suffixes of files that are read in addition to Pillow's.

    With a reader of the user's, they are its attribute `suffixes`. None: all files.
    """
    if decoding.reader:
        return getattr(own_reader(decoding.reader), "suffixes", None)
    return KEPT_ONLY if decoding.dtype else ()


@functools.cache
def own_reader(path: str) -> Callable[[bytes | Path], Any]:
    """Imports the reader at an import path.

    Raises:
        ValueError: if there is no such function.
    """
    found = import_object(path, FIELD)
    if not callable(found):
        raise ValueError(
            f"{FIELD}={path!r} must be a function of a path or bytes, not "
            f"{type(found).__name__}"
        )
    return found


def _by_own_reader(image: bytes | Path, path: str) -> Any:
    try:
        return own_reader(path)(image)
    except Exception as error:  # the function may raise any error
        raise ValueError(
            f"{FIELD}={path!r} raises {type(error).__name__}: {error}"
        ) from error


def open_picture(encoded: bytes, decoding: Decoding) -> Image.Image:
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
    _require_pixels(picture.width, picture.height, decoding)
    return picture


def orientation(picture: Image.Image) -> int:
    """Returns how a picture is turned, by its EXIF data; 1, upright, if it has none.

    Pixels of a picture whose EXIF data cannot be read are not damaged.
    """
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, struct.error):
        return 1


def upright(picture: Image.Image) -> Image.Image:
    """Returns the picture, turned as its EXIF data say."""
    return picture if orientation(picture) == 1 else ImageOps.exif_transpose(picture)


def _require_pixels(width: int, height: int, decoding: Decoding) -> None:
    most = decoding.max_pixels
    if width * height > most:
        raise ValueError(
            f"its {width}x{height} px are more than config.data.max_pixels={most:,}; "
            "set a larger number to use it"
        )


def is_deep(picture: Image.Image) -> bool:
    """Whether an image of Pillow has more than 8 bits per value."""
    return picture.mode.startswith("I") or picture.mode == "F"


def as_rgb(picture: Image.Image) -> np.ndarray:
    """Returns an image of 8 bits per value as RGB pixels [h, w, 3]."""
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB"))


def _pillow(encoded: bytes, decoding: Decoding) -> np.ndarray:
    header = encoded[:26].ljust(26)  # of a PNG: bits per channel, and kind of channels
    if header.startswith(_PNG) and header[24] == 16 and header[25] in _SEVERAL:
        raise ValueError(
            "it has 16 bits per channel, of which Pillow reads the upper 8; convert it "
            f"to TIFF or .npy, or use {FIELD}"
        )
    with open_picture(encoded, decoding) as picture:
        return _values(picture, decoding.channels)


def _values(picture: Image.Image, channels: int) -> np.ndarray:
    """Returns the values of an image of Pillow, upright."""
    sixteen = picture.mode.startswith("I;16") or picture.format in _SIXTEEN
    turned = upright(picture)
    if is_deep(picture):
        values = np.asarray(turned)
        return values.astype(np.uint16) if sixteen else values
    if channels == 3:
        return as_rgb(turned)
    if picture.mode == "1":
        return np.asarray(turned.convert("L"))
    if picture.mode in ("P", "PA"):
        has_alpha = picture.mode == "PA" or "transparency" in picture.info
        return np.asarray(turned.convert("RGBA" if has_alpha else "RGB"))
    return np.asarray(turned)


def _tiff(encoded: bytes, decoding: Decoding) -> np.ndarray:
    """Reads the pages of a TIFF file by tifffile, or by Pillow.

    Pillow knows more compressions; tifffile more numbers of channels and bits.
    """
    import tifffile  # not needed for other files

    as_indices = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.PALETTE)
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page: Any = file.pages[0]
            pillows = page.photometric in as_indices
            size = page.imagewidth, page.imagelength
            values = (
                None
                if pillows or np.prod(size) > decoding.max_pixels
                else (file.asarray())
            )
    except Exception as error:  # any error for a damaged file or a missing codec
        return _tiff_by_pillow(encoded, decoding, error)
    _require_pixels(*size, decoding)
    if values is None:
        return _tiff_by_pillow(encoded, decoding)
    return values


def _tiff_by_pillow(
    encoded: bytes, decoding: Decoding, error: Exception | None = None
) -> np.ndarray:
    """Reads the pages of a TIFF file by Pillow, after tifffile has raised an error."""
    try:
        with open_picture(encoded, decoding) as picture:
            pages = [
                np.atleast_3d(_values(page, decoding.channels))
                for page in ImageSequence.Iterator(picture)
                if not getattr(page, "tag_v2", {}).get(_SUBFILE_TYPE, 0) & 5
            ]
        return np.concatenate(pages, axis=-1)
    except Exception as second:
        raise ValueError(f"{error or second}") from second


def _npy(encoded: bytes, decoding: Decoding) -> np.ndarray:
    del decoding
    return np.load(io.BytesIO(encoded), allow_pickle=False)


def _dicom(encoded: bytes, decoding: Decoding) -> np.ndarray:
    """Reads a DICOM file: with its rescaling, and with high values bright."""
    try:
        import pydicom
    except ImportError:
        raise ValueError(
            "a DICOM file needs pydicom; install it by pip install 'logo_jax[dicom]'"
        ) from None
    try:
        found = pydicom.dcmread(io.BytesIO(encoded))
        _require_pixels(found.Columns, found.Rows, decoding)
        values = found.pixel_array
        if found.PhotometricInterpretation == "MONOCHROME1":
            signed = found.PixelRepresentation == 1
            values = (-1 if signed else 2**found.BitsStored - 1) - values
        if "RescaleSlope" in found or "RescaleIntercept" in found:
            slope = float(found.get("RescaleSlope", 1))
            return values * slope + float(found.get("RescaleIntercept", 0))
    except Exception as error:  # any error for a damaged file or a missing codec
        raise ValueError(f"{error}") from error
    return values


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
READERS = (
    Reader((".npy",), lambda encoded: encoded.startswith(b"\x93NUMPY"), _npy),
    Reader((".dcm", ".dicom"), lambda encoded: encoded[128:132] == b"DICM", _dicom),
    Reader((), lambda encoded: encoded.startswith(_TIFF), _tiff),
)
# Suffixes of files that are images only if values are kept as they are.
KEPT_ONLY = tuple(suffix for reader in READERS for suffix in reader.suffixes)
