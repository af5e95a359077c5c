"""Images in rows: crops beside their sources, neighbours beside those who ask."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from logo_jax.visualization.figure import COLOURS, RenderedFigure, bare, class_name, png

SAME, OTHER = COLOURS[2], COLOURS[6]
WIDTH = 10.0  # inches


class CropExample(NamedTuple):
    """An image and what was cut from it.

    Attributes:
        image: the source; may be stored smaller than it is.
        size: (height, width) of the original, in pixels.
        boxes: (top, left, height, width) of each crop, in pixels of the original; the
            global crops first.
        global_crops: as the network gets them, but in [0, 1].
        local_crops: the same.
    """

    image: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]
    boxes: Float[np.ndarray, "n 4"]
    global_crops: Float[np.ndarray, "g s s 3"]
    local_crops: Float[np.ndarray, "l t t 3"]


class NeighborExamples(NamedTuple):
    """Images that ask, and the images nearest to each.

    Attributes:
        queries: [q, h, w, 3].
        query_labels: -1 where unknown.
        images: the nearest first, [q, k, h, w, 3].
        labels: their classes, [q, k].
        cosines: their similarity, [q, k].
    """

    queries: UInt8[np.ndarray, "q h w 3"]
    query_labels: Int[np.ndarray, " q"]
    images: UInt8[np.ndarray, "q k u v 3"]
    labels: Int[np.ndarray, "q k"]
    cosines: Float[np.ndarray, "q k"]


def crop_grid(name: str, examples: Sequence[CropExample]) -> RenderedFigure:
    """Each image with the boxes of its crops, and the crops as the network gets them.

    Args:
        name: of the file.
        examples: with as many crops each.
    """
    num_global = len(examples[0].global_crops)
    num_local = len(examples[0].local_crops)
    columns = 1 + num_global + num_local

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(examples), columns, squeeze=False)
        for axes, example in zip(grid, examples, strict=True):
            _source(axes[0], example, num_global)
            for i, crop in enumerate([*example.global_crops, *example.local_crops]):
                axes[i + 1].imshow(crop, interpolation="nearest")
                bare(axes[i + 1], COLOURS[i % len(COLOURS)])
        for axes, title in zip(grid[0], _titles(num_global, num_local), strict=True):
            axes.set_title(title)

    side = min(WIDTH / columns, 2.2)
    return RenderedFigure(
        name=name,
        title="Crops, as the network sees them",
        caption="Left the stored image with the boxes of its crops (global ones solid, "
        "local ones dashed); then each crop of the first epoch after colour changes, "
        "framed in its box's colour and mirrored where training mirrors it.",
        alt=f"{len(examples)} rows: an image with {num_global} global and {num_local} "
        "local boxes drawn on it, then the crops that were cut there.",
        png=png((side * columns, side * len(examples) + 0.3), paint),
    )


def _titles(num_global: int, num_local: int) -> list[str]:
    titles = [f"global {i + 1}" for i in range(num_global)]
    return ["image", *titles, *(f"local {i + 1}" for i in range(num_local))]


def _source(axes: Axes, example: CropExample, num_global: int) -> None:
    height, width = example.size
    frame = (0, width, height, 0)
    axes.imshow(example.image, extent=frame, interpolation="nearest")
    for i, (top, left, tall, wide) in enumerate(example.boxes.tolist()):
        style = "-" if i < num_global else "--"
        colour = COLOURS[i % len(COLOURS)]
        axes.add_patch(
            Rectangle((left, top), wide, tall, fill=False, lw=2, ls=style, ec=colour)
        )
    margin = 0.03 * max(height, width)  # a box at the image's edge shows whole
    axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
    bare(axes)


def neighbor_grid(
    name: str, found: NeighborExamples, classes: Sequence[str] = ()
) -> RenderedFigure:
    """Each query, and the images whose features are nearest to its own.

    Args:
        name: of the file.
        found: queries and neighbours.
        classes: names by label; numbers are shown where there are none.
    """
    rows, columns = found.labels.shape
    known = found.query_labels >= 0
    same = found.labels == found.query_labels[:, None]

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, columns + 1, squeeze=False)
        for row in range(rows):
            query = found.queries[row]
            _tile(
                grid[row, 0], query, class_name(int(found.query_labels[row]), classes)
            )
            for i in range(columns):
                word = class_name(int(found.labels[row, i]), classes)
                cosine = f"{found.cosines[row, i]:.2f}"
                text = f"{word} · {cosine}" if word else cosine
                edge = (SAME if same[row, i] else OTHER) if known[row] else ""
                _tile(grid[row, i + 1], found.images[row, i], text, edge)

    part = f"{100 * same[known].mean():.0f} % of them share" if known.any() else ""
    side = WIDTH / (columns + 1)
    return RenderedFigure(
        name=name,
        title="Nearest neighbours",
        caption="Left an image, then the training images whose features have the "
        "largest cosine with its own, which is told above each"
        + (" after the class; green: of the same class, red: not." if part else "."),
        alt=f"{rows} rows of an image and its {columns} nearest"
        + (f"; {part} its class." if part else "."),
        png=png((WIDTH, (side + 0.28) * rows), paint),
    )


def _tile(axes: Axes, image: np.ndarray, text: str, edge: str = "") -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(text, fontsize=7)
    bare(axes, edge)
