"""A self-contained HTML page with figures and tables."""

import base64
import dataclasses
import html
import string
from collections.abc import Sequence
from typing import TypeAlias

from logo_jax.visualization.rendered import RenderedFigure


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: title of the table.
        header: header of each column.
        rows: rows with as many cells as the header.
        folded: whether the table is collapsed initially.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Markup:
    """A part of a page as HTML, which is not escaped."""

    text: str


Block: TypeAlias = RenderedFigure | Table | Markup | str  # a str is a paragraph


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page, with a heading."""

    title: str
    blocks: Sequence[Block]


def files(title: str, sections: Sequence[Section]) -> dict[str, bytes]:
    """Returns file contents by name: the page as index.html, and each figure as PNG."""
    figures = {
        f"{block.name}.png": block.png
        for section in sections
        for block in section.blocks
        if isinstance(block, RenderedFigure)
    }
    return {"index.html": page(title, sections).encode()} | figures


def page(title: str, sections: Sequence[Section], head: str = "") -> str:
    """Returns the page as the text of an HTML file.

    Args:
        title: title of the page.
        sections: sections in order; sections without blocks are left out.
        head: more elements for the head of the page, as HTML.
    """
    filled = [section for section in sections if section.blocks]
    links = "".join(
        f'<a href="#part-{i}">{html.escape(section.title)}</a>\n'
        for i, section in enumerate(filled)
    )
    return _PAGE.substitute(
        title=html.escape(title),
        style=_STYLE,
        head=head,
        links=links,
        body="".join(_section(i, section) for i, section in enumerate(filled)),
    )


def _section(i: int, section: Section) -> str:
    blocks = "".join(map(_block, section.blocks))
    title = html.escape(section.title)
    return f'<section id="part-{i}">\n<h2>{title}</h2>\n{blocks}</section>\n'


def _block(block: Block) -> str:
    if isinstance(block, RenderedFigure):
        return _figure(block)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Markup):
        return block.text
    return f"<p>{html.escape(block)}</p>\n"


def _figure(figure: RenderedFigure) -> str:
    data = base64.b64encode(figure.png).decode()
    title, caption = html.escape(figure.title), html.escape(figure.caption)
    return (
        f'<figure id="{html.escape(figure.name)}">\n<h3>{title}</h3>\n'
        f'<div class="image"><img src="data:image/png;base64,{data}" '
        f'alt="{html.escape(figure.alt)}"></div>\n'
        f"<figcaption>{caption}</figcaption>\n</figure>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(x)}</th>' for x in table.header)
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(x)}</td>' for x in row)}</tr>\n"
        for row in table.rows
    )
    title = html.escape(table.title)
    body = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"
    body = f'<div class="wide">{body}</div>'
    if table.folded:
        return f"<details><summary>{title}</summary>\n{body}</details>\n"
    return f"<h3>{title}</h3>\n{body}\n"


_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2330; --soft: #5a6372; --paper: #f6f7f9; --card: #ffffff;
  --line: #dfe3e9; --link: #2452ad;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ef; --soft: #a3abb9; --paper: #14171d; --card: #1d222b;
    --line: #333a46; --link: #8fb1f5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
header, main { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 48px 0 8px; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 24px 0 8px; }
p { max-width: 44rem; }
nav a { color: var(--link); margin-right: 20px; overflow-wrap: anywhere; }
figure, .wide {
  margin: 16px 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px;
}
figure { padding: 16px 20px; }
figure h3 { margin: 0 0 12px; }
.image { overflow-x: auto; background: #fff; border-radius: 6px; }
img { display: block; max-width: max(100%, 640px); height: auto; margin: 0 auto; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 12px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
th, td { text-align: left; padding: 7px 14px; border-bottom: 1px solid var(--line);
  vertical-align: top; font-variant-numeric: tabular-nums; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
summary { cursor: pointer; color: var(--link); margin: 16px 0; }
footer { padding: 40px 0; color: var(--soft); font-size: 0.85rem; }
"""

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="logo_jax">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
$head</head>
<body>
<header>
<h1>$title</h1>
<nav>
$links</nav>
</header>
<main>
$body<footer>Generated by logo_jax. All figures are embedded in this file.</footer>
</main>
</body>
</html>
""")
