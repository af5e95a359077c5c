"""Small image files in several formats for tests."""

import io

import numpy as np
from PIL import Image

from logo_jax.data.decode import decode

EXIF_ROTATED = (
    6  # value of the EXIF orientation tag: rotate by 90 degrees clockwise for display
)


def smooth(height, width, seed=0):
    """Smooth random image, uint8 [h, w, 3], with a small JPEG compression error."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(coarse).resize((width, height), bicubic))


def encoded(pixels, picture_format="PNG", mode=None, **options):
    """Returns the bytes of an image file."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, picture_format, **options)
    return file.getvalue()


def rotated_by_exif(pixels, picture_format):
    """Returns an image file with rotated pixels and the matching EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = EXIF_ROTATED
    options = {"quality": 95} if picture_format == "JPEG" else {"lossless": True}
    if picture_format == "PNG":
        options = {}
    return encoded(np.rot90(pixels), picture_format, exif=exif, **options)


def decoded(images):
    """Returns pixels [n, h, w, 3] and labels of a source of images of equal size."""
    records = images.records(range(len(images)))
    pixels = np.stack([decode(record.image)[0] for record in records])
    return pixels, [record.label for record in records]


def write_folder(root, counts, size=(24, 32), picture_format="PNG"):
    """Writes smooth images to root/CLASS/i.png, counts[CLASS] images of each class."""
    for label, (name, count) in enumerate(counts.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = smooth(*size, seed=100 * label + i)
            suffix = picture_format.lower()
            (folder / f"{i}.{suffix}").write_bytes(encoded(pixels, picture_format))
    return root
