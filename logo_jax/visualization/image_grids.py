"""Image grids: images with their crops, and queries with their nearest neighbors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from logo_jax.visualization.figure import COLORS, RenderedFigure, bare, class_name, png

SAME, OTHER = COLORS[2], COLORS[6]
WIDTH = 10.0  # inches


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


class NeighborExamples(NamedTuple):
    """Query images, and the nearest neighbors of each.

    Attributes:
        queries: query images, [q, h, w, 3].
        query_labels: classes of the queries, [q]; -1 if unknown.
        images: images of the neighbors, the nearest first, [q, k, u, v, 3].
        labels: classes of the neighbors, [q, k].
        cosines: cosine similarities of the neighbors to the query, [q, k].
    """

    queries: UInt8[np.ndarray, "q h w 3"]
    query_labels: Int[np.ndarray, " q"]
    images: UInt8[np.ndarray, "q k u v 3"]
    labels: Int[np.ndarray, "q k"]
    cosines: Float[np.ndarray, "q k"]


def crop_grid(name: str, examples: Sequence[CropExample]) -> RenderedFigure:
    """Returns a figure of images with the boxes of their crops, and of the crops.

    Args:
        name: name of the file.
        examples: images and crops; all have the same number of crops.
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
                bare(axes[i + 1], COLORS[i % len(COLORS)])
        for axes, title in zip(grid[0], _titles(num_global, num_local), strict=True):
            axes.set_title(title)

    side = min(WIDTH / columns, 2.2)
    return RenderedFigure(
        name=name,
        title="Crops, as the network sees them",
        caption="The first column shows the stored image with the boxes of its crops "
        "(global crops solid, local crops dashed). The other columns show each crop of "
        "the first epoch with its augmentation, framed in the color of "
        "its box.",
        alt=f"{len(examples)} rows: an image with the boxes of {num_global} global and "
        f"{num_local} local crops, then the crops.",
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
        color = COLORS[i % len(COLORS)]
        axes.add_patch(
            Rectangle((left, top), wide, tall, fill=False, lw=2, ls=style, ec=color)
        )
    margin = 0.03 * max(height, width)  # so that lines of boxes at the edge are shown
    axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
    bare(axes)


def neighbor_grid(
    name: str, found: NeighborExamples, classes: Sequence[str] = ()
) -> RenderedFigure:
    """Returns a figure of query images and their nearest neighbors by cosine.

    Args:
        name: name of the file.
        found: queries and neighbors.
        classes: class names by label; labels are shown for classes without a name.
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

    part = f"{100 * same[known].mean():.0f} % of them have" if known.any() else ""
    side = WIDTH / (columns + 1)
    return RenderedFigure(
        name=name,
        title="Nearest neighbors",
        caption="The first column shows a query image, the other columns the training "
        "images whose features have the largest cosine similarity to those of the query"
        + (
            "; the title is class and cosine, a frame is green for the query's class, "
            "red for others."
            if part
            else "; the title is the cosine."
        ),
        alt=f"{rows} rows of a query image and its {columns} nearest neighbors"
        + (f"; {part} its class." if part else "."),
        png=png((WIDTH, (side + 0.28) * rows), paint),
    )


def _tile(axes: Axes, image: np.ndarray, text: str, edge: str = "") -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(text, fontsize=7)
    bare(axes, edge)
