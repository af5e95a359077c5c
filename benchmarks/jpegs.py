"""JPEGs for benchmarks: the quickstart's ten photographs, which need no download."""

import io

from PIL import Image, ImageOps

from logo_jax.data.sources.photographs import PHOTOGRAPHS, locate_photograph

QUALITY = 92
IMAGENET_LIKE = (500, 375)  # width, height; ImageNet's most frequent size


def photographs(size: tuple[int, int] | None = None) -> list[bytes]:
    """Returns the photographs as JPEGs.

    Args:
        size: (width, height) in pixels of the images, each made of the largest center
            crop of that aspect ratio by Pillow's Lanczos filter; None: original images.
    """
    return [_encoded(name, size) for name in PHOTOGRAPHS]


def _encoded(name: str, size: tuple[int, int] | None) -> bytes:
    with Image.open(locate_photograph(name)) as photograph:
        picture = photograph.convert("RGB")
    if size:
        picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
