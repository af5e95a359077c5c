"""JPEGs to measure on: the quickstart's ten photographs, which need no download."""

import io

from PIL import Image, ImageOps

from logo_jax.data.sources.photographs import PHOTOGRAPHS, locate_photograph

QUALITY = 92
IMAGENET_LIKE = (500, 375)  # width, height; ImageNet's most frequent size


def photographs(size: tuple[int, int] | None = None) -> list[bytes]:
    """The photographs, encoded.

    Args:
        size: (width, height) to bring the largest centred cut of that shape to, by
            Pillow's Lanczos filter; None leaves them whole and as large as they are.
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
