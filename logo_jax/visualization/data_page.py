"""The page about a data set before training: `doctor --data`."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from logo_jax.data.load import ExperimentData
from logo_jax.data.sources.base import ImageSource
from logo_jax.data.survey import Survey, equal_images
from logo_jax.experiment.experiment import some_of
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.visualization.crop_grid import crop_grid
from logo_jax.visualization.figure import png
from logo_jax.visualization.html_page import Block, Section, Table
from logo_jax.visualization.rendered import COLORS, RenderedFigure
from logo_jax.visualization.run_crops import crop_examples

TRAIN, QUERIES, BANK = "train", "queries", "bank"
MOST_ROWS = 200  # of a table
MOST_BARS = 60


class Surveyed(NamedTuple):
    """A data set and what is known of its images.

    Attributes:
        data: the images as `main` reads them.
        parts: sources by name: "train"; "queries" and "bank" if there are any, and if
            the bank is not the training images.
        surveys: what is known of the images of each part.
    """

    data: ExperimentData
    parts: dict[str, ImageSource]
    surveys: dict[str, Survey]


class Copies(NamedTuple):
    """Images whose stored bytes are equal.

    Attributes:
        groups: names of equal images, with their part and class.
        number: number of images without which no two would be equal.
        leaked: number of queries that are equal to a training image.
        contradictory: number of groups whose images have different classes.
    """

    groups: list[list[str]]
    number: int
    leaked: int
    contradictory: int


def parts_of(data: ExperimentData) -> dict[str, ImageSource]:
    """Returns the sources of a data set by name, each once."""
    found = {TRAIN: data.train, QUERIES: data.queries, BANK: data.bank}
    if data.bank is data.train:
        del found[BANK]
    return {name: source for name, source in found.items() if source is not None}


def find_copies(surveyed: Surveyed) -> Copies:
    """Finds the images whose stored bytes are equal, within and across parts."""
    names = list(surveyed.parts)
    surveys = list(surveyed.surveys.values())
    part = np.repeat(np.arange(len(names)), [len(x.ids) for x in surveys])
    ids = np.concatenate([x.ids for x in surveys])
    labels = np.concatenate([x.labels for x in surveys])
    groups, count, leaked, contradictory = [], 0, 0, 0
    for rows in equal_images(np.concatenate([x.digests for x in surveys])):
        count += len(rows) - 1
        of_queries = np.array([names[p] == QUERIES for p in part[rows]])
        leaked += int(of_queries.sum()) if not of_queries.all() else 0
        contradictory += len(set(labels[rows].tolist())) > 1
        if len(groups) < MOST_ROWS:
            groups.append(
                [
                    f"{names[p]}: {surveyed.parts[names[p]].name(int(i))}"
                    for p, i in zip(part[rows], ids[rows], strict=True)
                ]
            )
    return Copies(groups, count, leaked, contradictory)


def sections(
    surveyed: Surveyed, copies: Copies, spec: ExperimentSpec, about: Sequence[str]
) -> list[Section]:
    """Returns the sections of the page.

    Args:
        surveyed: the data set.
        copies: its equal images.
        spec: the experiment that would be trained, for the crops.
        about: sentences about the data set and the experiment.
    """
    return [
        Section("Images", [_overview(surveyed), *about, *_folders(surveyed)]),
        Section("Crops", _crops(surveyed.data.train, spec)),
        Section("Sizes and formats", [_sizes(surveyed), *_size_figures(surveyed)]),
        Section("Classes", _classes(surveyed)),
        Section("Equal images", _copies(copies)),
        Section("Damaged images", _damaged(surveyed)),
    ]


def _overview(surveyed: Surveyed) -> Table:
    rows = [
        [
            name,
            source.origin,
            f"{len(source):,}",
            f"{source.num_classes:,}" if source.num_classes else "no labels",
            f"{len(found.ids):,}",
            f"{len(found.damaged):,}",
            f"{found.num_bytes / 2**20:,.1f}",
        ]
        for (name, source), found in zip(
            surveyed.parts.items(), surveyed.surveys.values(), strict=True
        )
    ]
    header = ["part", "origin", "images", "classes", "read", "damaged", "MiB read"]
    return Table("The images, as training would read them", header, rows)


def _folders(surveyed: Surveyed) -> list[Block]:
    tables: list[Block] = []
    for name, source in surveyed.parts.items():
        if files := getattr(source, "files", None):
            counts = Counter(os.path.dirname(file) or "." for file in files)
            tables.append(
                _counts(f"Images of {name} by folder", "folder", counts, folded=True)
            )
    return tables


def _counts(title: str, what: str, counts: Counter[str], folded: bool = False) -> Table:
    """A table of counts, the largest first; the rest is one row."""
    total, shown = counts.total(), counts.most_common(MOST_ROWS)
    rows = [[x, f"{n:,}", f"{100 * n / total:.3g} %"] for x, n in shown]
    if rest := len(counts) - len(shown):
        left = total - sum(n for _, n in shown)
        rows.append([f"{rest:,} more", f"{left:,}", f"{100 * left / total:.3g} %"])
    return Table(title, [what, "images", "share"], rows, folded)


def _sizes(surveyed: Surveyed) -> Table:
    rows = []
    for name, found in surveyed.surveys.items():
        if not len(found.sizes):
            continue
        height, width = found.sizes.T
        for what, values in (
            ("height", height),
            ("width", width),
            ("short side", found.sizes.min(1)),
            ("megapixels", height * width / 1e6),
        ):
            middle = np.median(values)
            shown = [f"{x:,.4g}" for x in (values.min(), middle, values.max())]
            rows.append([name, what, *shown])
    return Table("Sizes in pixels", ["part", "", "smallest", "median", "largest"], rows)


def _size_figures(surveyed: Surveyed) -> list[Block]:
    kinds = sum((found.kinds for found in surveyed.surveys.values()), Counter())
    tables: list[Block] = [_counts("Formats and modes", "format and mode", kinds)]
    sizes = np.concatenate([found.sizes for found in surveyed.surveys.values()])
    if not len(sizes):
        return tables
    short, aspect = sizes.min(1), sizes[:, 1] / sizes[:, 0]

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _histogram(left, short, "short side, pixels")
        _histogram(right, aspect, "width / height")

    figure = RenderedFigure(
        name="sizes",
        title="Sizes",
        caption="The number of images by short side, and by width / height.",
        alt=f"Histograms of short sides from {short.min()} to {short.max()} pixels "
        f"and of width / height from {aspect.min():.2f} to {aspect.max():.2f}.",
        png=png((9.0, 3.0), paint),
    )
    return [figure, *tables]


def _histogram(axes: Any, values: np.ndarray, label: str) -> None:
    axes.hist(values, bins=40, color=COLORS[0])
    axes.set(xlabel=label, ylabel="images")


def _classes(surveyed: Surveyed) -> list[Block]:
    blocks: list[Block] = []
    for name, source in surveyed.parts.items():
        if not source.num_classes:
            blocks.append(f"The images of {name} have no labels.")
            continue
        counts = class_counts(source, surveyed.surveys[name])
        if not counts:
            blocks.append(f"The images of {name} have several classes each.")
            continue
        blocks.append(_bars(name, counts))
        blocks.append(_counts(f"Classes of {name}", "class", counts, folded=True))
    return blocks


def class_counts(source: ImageSource, found: Survey) -> Counter[str]:
    """Returns the number of images that were read of each class of a source."""
    names = getattr(source, "class_names", ()) or range(source.num_classes)
    known = found.labels[found.labels >= 0]
    if not len(known):
        return Counter()
    numbers = np.bincount(known, minlength=len(names))
    return Counter({str(x): int(n) for x, n in zip(names, numbers, strict=True)})


def _bars(part: str, counts: Counter[str]) -> RenderedFigure:
    ordered = counts.most_common()
    numbers = [count for _, count in ordered]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(range(len(numbers)), numbers, width=0.9, color=COLORS[0])
        axes.set(ylabel="images", xlabel=f"classes of {part}, the largest first")
        if len(ordered) <= MOST_BARS:
            axes.set_xticks(range(len(ordered)), [x for x, _ in ordered], rotation=90)
        else:
            axes.set_xticks([])

    largest, smallest = ordered[0], ordered[-1]
    return RenderedFigure(
        name=f"classes-{part}",
        title=f"Classes of {part}",
        caption=f"The largest of {len(ordered):,} classes is {largest[0]} with "
        f"{largest[1]:,} images, the smallest is {smallest[0]} with {smallest[1]:,}.",
        alt=f"Bars of the number of images of {len(ordered):,} classes.",
        png=png((9.0, 3.2), paint),
    )


def _copies(copies: Copies) -> list[Block]:
    if not copies.number:
        return ["No two of the images that were read have the same bytes."]
    blocks: list[Block] = [
        f"{copies.number:,} images are copies of others, byte by byte; "
        f"{copies.leaked:,} queries are also training images, and "
        f"{copies.contradictory:,} groups of copies have different classes."
    ]
    rows = [[str(len(group)), "; ".join(group[:10])] for group in copies.groups]
    return [*blocks, Table("Groups of copies", ["images", "names"], rows, folded=True)]


def _damaged(surveyed: Surveyed) -> list[Block]:
    lines = [line for found in surveyed.surveys.values() for line in found.damaged]
    if not lines:
        return ["All images that were read can be decoded."]
    rows = [[line] for line in lines[:MOST_ROWS]]
    text = f"{len(lines):,} images cannot be decoded"
    return [Table(text, ["image and reason"], rows)]


def _crops(images: ImageSource, spec: ExperimentSpec) -> list[Block]:
    try:
        examples = some_of(images, spec)
        return [crop_grid("crops", crop_examples(spec, examples))]
    except (ValueError, OSError) as error:
        return [f"No figure of crops: {' '.join(str(error).split()).rstrip('.')}."]
