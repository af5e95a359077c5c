"""Small picture files for tests, as users have them."""

import io

import numpy as np
from PIL import Image

from logo_jax.data.decode import decode

EXIF_ROTATED = 6  # the camera was held upright: turn a quarter clockwise to see it so


def smooth(height, width, seed=0):
    """Smooth random colours, uint8 [height, width, 3], which JPEG keeps nearly."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(coarse).resize((width, height), bicubic))


def encoded(pixels, picture_format="PNG", mode=None, **options):
    """The bytes of a picture file."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, picture_format, **options)
    return file.getvalue()


def rotated_by_exif(pixels, picture_format):
    """A file whose pixels lie on their side and whose EXIF data say so."""
    exif = Image.Exif()
    exif[0x0112] = EXIF_ROTATED
    options = {"quality": 95} if picture_format == "JPEG" else {"lossless": True}
    if picture_format == "PNG":
        options = {}
    return encoded(np.rot90(pixels), picture_format, exif=exif, **options)


def decoded(images):
    """Pixels [n, h, w, 3] and labels of a source whose images are of one size."""
    records = images.records(range(len(images)))
    pixels = np.stack([decode(record.image)[0] for record in records])
    return pixels, [record.label for record in records]


def write_folder(root, counts, size=(24, 32), picture_format="PNG"):
    """Files DIR/CLASS/i.png of smooth pixels, `counts` of each class."""
    for label, (name, count) in enumerate(counts.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = smooth(*size, seed=100 * label + i)
            suffix = picture_format.lower()
            (folder / f"{i}.{suffix}").write_bytes(encoded(pixels, picture_format))
    return root
