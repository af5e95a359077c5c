"""A grid of images with the boxes of their crops, and of the crops.

Pillow draws it, because importing and using matplotlib takes longer than all else that
happens before the second step of a run.
"""

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from logo_jax.visualization.rendered import COLORS, RenderedFigure

# All in pixels.
WIDTH = 1440  # of the grid
LARGEST = 316  # side of a cell, if there are few columns
GAP = 10  # between cells
HEADER, FONT_SIZE = 36, 20
LINE = 4
DASH, SPACE = 14, 6  # of dashed lines
MARGIN = 0.03  # around an image, for lines at its edge; a fraction of its longer side


class CropExample(NamedTuple):
    """An image and its crops.

    Attributes:
        image: image as stored; it may be smaller than the original.
        size: (height, width) of the original in pixels.
        boxes: (top, left, height, width) of each crop, in pixels of the original;
            global crops come first.
        global_crops: global crops as the network receives them, but with values in
            [0, 1] before normalization.
        local_crops: local crops, with the same range of values.
    """

    image: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]
    boxes: Float[np.ndarray, "n 4"]
    global_crops: Float[np.ndarray, "g s s 3"]
    local_crops: Float[np.ndarray, "l t t 3"]


def crop_grid(name: str, examples: Sequence[CropExample]) -> RenderedFigure:
    """Returns a figure of images with the boxes of their crops, and of the crops.

    Args:
        name: name of the file.
        examples: images and crops; all have the same number of crops.
    """
    num_global = len(examples[0].global_crops)
    num_local = len(examples[0].local_crops)
    titles = _titles(num_global, num_local)
    cell = min(WIDTH // len(titles), LARGEST)
    page = Image.new(
        "RGB", (cell * len(titles), HEADER + cell * len(examples)), "white"
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_SIZE)
    for column, title in enumerate(titles):
        middle = (cell * (column + 0.5), HEADER / 2)
        draw.text(middle, title, "black", font, anchor="mm")
    for row, example in enumerate(examples):
        crops = [*example.global_crops, *example.local_crops]
        tiles = [_with_boxes(example, cell - GAP)]
        tiles += [_framed(crop, cell - GAP, _color(i)) for i, crop in enumerate(crops)]
        for column, tile in enumerate(tiles):
            left, top = (cell - tile.width) // 2, (cell - tile.height) // 2
            page.paste(tile, (cell * column + left, HEADER + cell * row + top))
    file = io.BytesIO()
    page.save(file, format="png")
    return RenderedFigure(
        name=name,
        title="Crops, as the network sees them",
        caption="The first column shows the stored image with the boxes of its crops "
        "(global crops solid, local crops dashed). The other columns show each crop of "
        "the first epoch with its augmentation, framed in the color of "
        "its box.",
        alt=f"{len(examples)} rows: an image with the boxes of {num_global} global and "
        f"{num_local} local crops, then the crops.",
        png=file.getvalue(),
    )


def _titles(num_global: int, num_local: int) -> list[str]:
    titles = [f"global {i + 1}" for i in range(num_global)]
    return ["image", *titles, *(f"local {i + 1}" for i in range(num_local))]


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _framed(crop: np.ndarray, side: int, color: str) -> Image.Image:
    pixels = Image.fromarray((255 * crop).round().astype(np.uint8))
    tile = pixels.resize((side, side), Image.Resampling.NEAREST)
    corners = (0, 0, side - 1, side - 1)
    ImageDraw.Draw(tile).rectangle(corners, outline=color, width=LINE)
    return tile


def _with_boxes(example: CropExample, side: int) -> Image.Image:
    """The image, which is `side` pixels long with its margins, and its boxes."""
    size = np.array(example.size)
    margin = MARGIN * size.max()
    scale = side / (size.max() + 2 * margin)
    height, width = (scale * size).round().astype(int).clip(1).tolist()
    edge = round(scale * margin)
    tile = Image.new("RGB", (width + 2 * edge, height + 2 * edge), "white")
    stored = Image.fromarray(example.image)
    tile.paste(stored.resize((width, height), Image.Resampling.NEAREST), (edge, edge))
    draw = ImageDraw.Draw(tile)
    for i, (top, left, tall, wide) in enumerate((scale * example.boxes).tolist()):
        corners = (edge + left, edge + top, edge + left + wide, edge + top + tall)
        if i < len(example.global_crops):
            draw.rectangle(corners, outline=_color(i), width=LINE)
        else:
            for line in _dashes(*corners):
                draw.line(line, _color(i), LINE)
    return tile


def _dashes(
    left: float, top: float, right: float, bottom: float
) -> Iterator[tuple[float, float, float, float]]:
    """Lines (x, y, x, y) along the sides of a box."""
    for start in np.arange(left, right, DASH + SPACE).tolist():
        stop = min(start + DASH, right)
        yield from ((start, y, stop, y) for y in (top, bottom))
    for start in np.arange(top, bottom, DASH + SPACE).tolist():
        stop = min(start + DASH, bottom)
        yield from ((x, start, x, stop) for x in (left, right))
