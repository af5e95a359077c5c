"""A grid of query images and their nearest neighbors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from logo_jax.visualization.figure import bare, class_name, png
from logo_jax.visualization.rendered import COLORS, RenderedFigure

SAME, OTHER = COLORS[2], COLORS[6]
WIDTH = 10.0  # inches


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
