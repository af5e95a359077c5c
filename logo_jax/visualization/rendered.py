"""A rendered figure: PNG bytes with title, caption and alternative text."""

import dataclasses

DPI = 144
COLORS = (
    "#3566c8",
    "#e07b39",
    "#2f9e6e",
    "#b5468b",
    "#7a6ad8",
    "#a08423",
    "#d0473e",
    "#3fa4b8",
    "#6b7280",
    "#8a5a3c",
)


@dataclasses.dataclass(frozen=True)
class RenderedFigure:
    """A figure as PNG, with its text.

    Attributes:
        name: name of the file, without suffix.
        title: short title.
        caption: caption, which explains what the figure shows and how to read it.
        alt: alternative text, which describes the figure to readers who cannot see it.
        png: contents of the PNG file.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
