"""A page to browse images by their neighbors: one file with thumbnails and a script."""

import base64
import functools
import html
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from logo_jax.augment.color import AugmentSpec
from logo_jax.data.decode import decode
from logo_jax.data.eval_crops import evenly_spaced, in_chunks
from logo_jax.data.sources.base import ImageSource
from logo_jax.visualization.html_page import Markup, Section, page
from logo_jax.visualization.run_crops import stored_pixels

SIDE = 128  # of thumbnails, in pixels
QUALITY = 75  # of JPEG; a thumbnail is 3 kB on average and at most 15 kB
# Largest distance of near-duplicates (1 - cosine), as a fraction of the usual distance
# of an image to the last of its neighbors; and what float32 can distinguish.
NEAR, ROUNDING = 0.1, 1e-5


class Neighbors(NamedTuple):
    """The nearest neighbors of every image, the nearest first, without the image.

    Attributes:
        cosines: cosine similarities, [n, k].
        rows: numbers of the neighbors, [n, k].
    """

    cosines: Float[np.ndarray, "n k"]
    rows: Int[np.ndarray, "n k"]


def without_itself(
    cosines: Float[np.ndarray, "n k"], rows: Int[np.ndarray, "n k"]
) -> Neighbors:
    """Removes each image from its own k neighbors; or, if it is not there, the last.

    An image may be missing among its neighbors if more than k are equal to it.
    """
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(1), -1] = True
    shape = (len(rows), -1)
    return Neighbors(cosines[~own].reshape(shape), rows[~own].reshape(shape))


def usual_threshold(found: Neighbors) -> float:
    """Returns a cosine from which on images are near-duplicates.

    Cosines of different images depend on the encoder. So the distance of
    near-duplicates is at most a tenth of the median distance of an image to the last of
    its neighbors.
    """
    usual = float(np.median(1 - found.cosines[:, -1]))
    return 1 - max(NEAR * usual, ROUNDING)


def duplicate_groups(found: Neighbors, threshold: float) -> list[list[int]]:
    """Returns groups of images that are connected by pairs with at least this cosine.

    The largest groups are the first; every group has two images or more.
    """
    count = len(found.rows)
    from_row, place = np.nonzero(found.cosines >= threshold)
    pairs = (from_row, found.rows[from_row, place])
    graph = coo_array((np.ones(len(from_row), bool), pairs), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    groups = [x.tolist() for x in np.split(order, starts[1:]) if len(x) > 1]
    return sorted(groups, key=len, reverse=True)


def shown_rows(
    found: Neighbors, groups: Sequence[Sequence[int]], most: int
) -> set[int]:
    """Returns the images that the page shows, at most `most`.

    If those are not all, half of them are near-duplicates, and the others evenly spaced
    images, each with its neighbors.
    """
    count, k = found.rows.shape
    if count <= most:
        return set(range(count))
    chosen: set[int] = set()
    for group in groups:
        if len(chosen) + len(group) <= most // 2:
            chosen |= set(group)
    for row in evenly_spaced(count, max(1, (most - len(chosen)) // (k + 1))).tolist():
        wanted = [row, *found.rows[row].tolist()]
        room = most - len(chosen)
        chosen |= set([x for x in wanted if x not in chosen][:room])
    return chosen


def thumbnails(
    images: ImageSource, rows: Sequence[int], augment: AugmentSpec
) -> list[bytes]:
    """Returns JPEG files of images, whose longer side is `SIDE` pixels."""
    parts = in_chunks(
        functools.partial(_thumbnails, images, augment), np.array(rows), threads=0
    )
    return [thumbnail for _, part in parts for thumbnail in part]


def _thumbnails(
    images: ImageSource, augment: AugmentSpec, rows: np.ndarray
) -> list[bytes]:
    found = []
    for record in images.records(rows):
        pixels, _ = decode(record.image, (SIDE, SIDE), record.decoding)
        picture = Image.fromarray(np.ascontiguousarray(stored_pixels(pixels, augment)))
        picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=QUALITY)
        found.append(file.getvalue())
    return found


def neighbor_page(
    title: str,
    about: Sequence[str],
    names: Sequence[tuple[str, str]],
    found: Neighbors,
    groups: Sequence[Sequence[int]],
    shown: dict[int, bytes],
) -> str:
    """Returns the page as the text of an HTML file.

    Args:
        title: title of the page.
        about: sentences about the images.
        names: name and class of every image; the class is "" if it is unknown.
        found: neighbors of every image.
        groups: near-duplicates.
        shown: JPEG files of the images that are shown, by number.
    """
    whole = [group for group in groups if shown.keys() >= set(group)]
    grouped = {row for group in whole for row in group}
    copies = [
        block
        for group in whole
        for block in (f"{len(group)} images:", _gallery(group, names, shown))
    ]
    rest = [row for row in sorted(shown) if row not in grouped]
    lists = {
        row: [
            [other, round(float(cosine), 4)]
            for other, cosine in zip(found.rows[row].tolist(), cosines, strict=True)
        ]
        for row, cosines in ((row, found.cosines[row]) for row in sorted(shown))
    }
    named = {other: names[other] for x in lists.values() for other, _ in x}
    named |= {row: names[row] for row in shown}
    # "<" could end the element
    data = json.dumps({"near": lists, "names": named}).replace("<", "\\u003c")
    sections = [
        Section("About", [*about, Markup(_BODY)]),
        Section("Near-duplicates", copies),
        Section("Other images", [_gallery(rest, names, shown)] if rest else []),
    ]
    return page(title, sections, _HEAD.replace("DATA", data))


def _gallery(
    rows: Sequence[int], names: Sequence[tuple[str, str]], shown: dict[int, bytes]
) -> Markup:
    figures = []
    for row in rows:
        name, kind = map(html.escape, names[row])
        data = base64.b64encode(shown[row]).decode()
        figures.append(
            f'<figure id="i{row}"><a href="#i{row}"><img alt="{name}" '
            f'src="data:image/jpeg;base64,{data}"></a>'
            f'<figcaption title="{name}">{name}<br>{kind}</figcaption></figure>\n'
        )
    return Markup(f'<div class="gallery">\n{"".join(figures)}</div>\n')


_BODY = """<p><label>Show names and classes that contain
<input id="filter" type="search" autocomplete="off"></label></p>
<aside id="panel" aria-label="Nearest neighbors" hidden></aside>
<noscript><p>The neighbors are shown by a script, which this browser does not
run.</p></noscript>
"""

# A module runs after the page is read. The image whose neighbors are shown is the
# fragment of the address, so that the browser's back button works.
_HEAD = """<style>
html { scroll-padding-bottom: 60vh; }
body { padding-bottom: 40vh; }
.gallery { display: grid; gap: 10px; margin: 16px 0;
  grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); }
.gallery figure, #panel .card { margin: 0; padding: 6px; min-width: 0;
  border-radius: 8px; }
.gallery figure:target, #panel .chosen { outline: 3px solid var(--link); }
.gallery a, #panel .picture { display: flex; aspect-ratio: 1; background: #8882;
  align-items: center; justify-content: center; border-radius: 4px; }
.gallery img, #panel img { max-width: 100%; max-height: 100%; object-fit: contain; }
.gallery figcaption, #panel .card { font-size: 0.75rem; line-height: 1.3; }
.gallery figcaption { margin-top: 4px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; min-height: 2.6em; }
#filter { font: inherit; padding: 4px 8px; max-width: 100%; }
#panel { position: fixed; inset: auto 0 0 0; z-index: 1; max-height: 58vh;
  overflow: auto; background: var(--card); border-top: 1px solid var(--line);
  box-shadow: 0 -6px 24px #0003; padding: 10px 16px 16px; }
#panel h2 { font-size: 1rem; margin: 0 40px 8px 0; }
#panel .close { position: absolute; right: 16px; top: 8px; color: var(--link); }
#panel .cards { display: grid; gap: 10px; margin: 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); }
#panel .card { background: var(--paper); color: var(--ink); text-decoration: none;
  border: 1px solid var(--line); overflow-wrap: anywhere; }
#panel b { font-variant-numeric: tabular-nums; display: block; margin-top: 4px; }
</style>
<script id="data" type="application/json">DATA</script>
<script type="module">
const {near, names} = JSON.parse(document.getElementById("data").textContent);
const panel = document.getElementById("panel");
const filter = document.getElementById("filter");
function add(parent, name, text, kind) {
  const element = parent.appendChild(document.createElement(name));
  element.textContent = text;
  element.className = kind;
  return element;
}
function card(parent, row, text, kind) {
  const figure = document.getElementById("i" + row);
  const made = add(parent, figure ? "a" : "div", "", "card " + kind);
  const picture = add(made, "div", figure ? "" : "not on this page", "picture");
  if (figure) {
    made.href = "#i" + row;
    const image = add(picture, "img", "", "");
    image.src = figure.querySelector("img").src;
    image.alt = names[row][0];
  }
  add(made, "b", text, "");
  add(made, "div", names[row][0], "");
  add(made, "div", names[row][1], "");
}
function show() {
  const row = location.hash.replace("#i", "");
  panel.hidden = !(row in near);
  panel.replaceChildren();
  if (panel.hidden) return;
  add(panel, "h2", "Nearest neighbors of " + names[row][0], "");
  add(panel, "a", "close", "close").href = "#part-0";
  const cards = add(panel, "div", "", "cards");
  card(cards, row, "this image", "chosen");
  for (const [other, cosine] of near[row]) card(cards, other, cosine.toFixed(4), "");
}
function sift() {
  const text = filter.value.toLowerCase();
  for (const figure of document.querySelectorAll(".gallery figure")) {
    const words = names[figure.id.slice(1)].join(" ").toLowerCase();
    figure.hidden = !words.includes(text);
  }
}
addEventListener("hashchange", show);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.hidden) location.hash = "#part-0";
});
filter.addEventListener("input", sift);
show();
</script>
"""
