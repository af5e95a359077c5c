"""What the figures that matplotlib draws have in common."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from logo_jax.visualization.rendered import DPI

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9aa1ad",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.color": "#e6e8ec",
    "legend.frameon": False,
    "text.parse_math": False,  # the name of a folder may contain dollar signs
}


def png(size: tuple[float, float], paint: Callable[[Figure], Any]) -> bytes:
    """Returns the PNG bytes of a figure that `paint` draws.

    The bytes are the same at every call. Neither the global state of matplotlib nor a
    window is used.

    Args:
        size: (width, height) in inches.
        paint: function that draws on an empty figure.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def bare(axes: Axes, edge: str = "") -> None:
    """Removes ticks and grid from axes that show an image, and optionally adds a frame.

    Args:
        axes: axes that show an image.
        edge: color of the frame; "": no frame.
    """
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=bool(edge), linewidth=2.5)
        if edge:
            spine.set_edgecolor(edge)


def class_name(label: int, classes: Sequence[str]) -> str:
    """Returns the name of a class; its number if it has no name; "" for label -1.

    >>> class_name(1, ["cat", "dog"]), class_name(7, []), class_name(-1, ["cat"])
    ('dog', '7', '')
    """
    if label < 0:
        return ""
    return classes[label] if label < len(classes) else str(label)
