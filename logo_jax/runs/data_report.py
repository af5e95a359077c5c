"""What a data set is like before training: findings, and a page: `doctor --data`."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from logo_jax.data.canvas import most_corrupt
from logo_jax.data.load import (
    ExperimentData,
    load_images,
    locate_dataset,
    require_images,
)
from logo_jax.data.sources.folder import NO_CLASS, UNMATCHED
from logo_jax.data.survey import Survey, survey
from logo_jax.experiment import ExperimentSpec, make_spec
from logo_jax.experiment.choosing import chosen
from logo_jax.experiment.config import parse
from logo_jax.experiment.measured import with_measured
from logo_jax.storage.paths import parse_paths
from logo_jax.training import atomic
from logo_jax.visualization import data_page
from logo_jax.visualization.data_page import Copies, Surveyed
from logo_jax.visualization.html_page import page

SKEWED = 10  # times as many images in the largest class as in the smallest
EVERY = 5.0  # seconds between lines of progress


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        verdict: "ok", "warn" or "FAIL".
        subject: name of the check, one word.
        text: what was found; for "FAIL", also the remedy.
    """

    verdict: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:5}{self.subject:9}{self.text}"


def with_data(config: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Returns a config with other images: a folder, an .npz file or a TFDS name.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if it is a URL.
    """
    require_images(data, "--data=")
    fields = {"path": "", "name": ""} | locate_dataset(data)
    return {**config, "data": {**config["data"], **fields}}


def require_outside(file: Path, data: str) -> None:
    """Raises an error if a file would be written to a folder of the images.

    Raises:
        ValueError: if it would.
    """
    for root in parse_paths(data):
        if root.is_dir() and file.resolve().is_relative_to(root.resolve()):
            raise ValueError(
                f"{file} is in the folder of the images, which is not changed; write "
                "it to another folder"
            )


def describe_data(
    config: Mapping[str, Any],
    mesh: Mesh,
    out: Path,
    *,
    limit: int = 0,
    damaged: Path | None = None,
) -> Iterator[Finding]:
    """Yields findings about the images of a config, and writes a page about them.

    Args:
        config: the config of an experiment on the images.
        mesh: the devices.
        out: HTML file of the page.
        limit: number of images of each part that are read, evenly spaced; 0: all.
        damaged: file to write the names of damaged images to; None: only on the page.

    Raises:
        ValueError: if the config or the images cannot be read.
        OSError: if a file cannot be read or written.
    """
    typed = parse(config)
    data = load_images(typed.data.location)
    yield Finding("ok" if data.queries else "warn", "images", _images(data))
    for note in data.notes:
        is_warning = any(x in note for x in ("passed over", NO_CLASS, UNMATCHED))
        yield Finding("warn" if is_warning else "ok", "notes", note)
    spec, data, chosen_lines = _spec(config, mesh, data)
    yield from chosen_lines
    parts = data_page.parts_of(data)
    surveys = {
        name: survey(
            source,
            limit,
            threads=typed.data.threads,
            progress=_Progress(name, min(limit or len(source), len(source))),
        )
        for name, source in parts.items()
    }
    surveyed = Surveyed(data, parts, surveys)
    copies = data_page.find_copies(surveyed)
    yield from _read(surveyed, copies, typed.data.max_corrupt)
    if damaged is not None:
        lines = [x for found in surveys.values() for x in found.damaged]
        write_lines(damaged, lines)
        yield Finding("ok", "list", f"{damaged} lists the damaged images")
    about = [f"{_images(data)}.", *(f"{x}." for x in data.notes)]
    about += [line.text for line in chosen_lines]
    content = data_page.sections(surveyed, copies, spec, about)
    _write(out, page(f"Images of {data.train.origin}", content))
    yield Finding("ok", "page", f"wrote {out}")


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Writes lines; bytes of names that are not UTF-8 are written as escapes."""
    _write(file, "".join(f"{line}\n" for line in lines))


def _write(file: Path, text: str) -> None:
    atomic.write_text(file, text.encode("utf-8", "backslashreplace").decode())


def _images(data: ExperimentData) -> str:
    train, queries = data.train, data.queries
    classes = f" in {train.num_classes:,} classes" if train.num_classes else ""
    text = f"{len(train):,} images of {train.origin}{classes}"
    if queries is None:
        return f"{text}; no kNN: {data.why_no_queries}"
    remark = f" ({data.remark})" if data.remark else ""
    return f"{text}; kNN: queries {len(queries):,} of {queries.origin}{remark}"


def _spec(
    config: Mapping[str, Any], mesh: Mesh, data: ExperimentData
) -> tuple[ExperimentSpec, ExperimentData, list[Finding]]:
    """Returns the experiment that would be trained, its images and findings."""
    try:
        config, text = chosen(config, None, mesh, lambda: data)
        line = Finding("ok", "chosen", text or "nothing: the config states all fields")
    except ValueError as error:
        line = Finding("FAIL", "chosen", str(error))
    typed, data, notes = with_measured(parse({**config, "seeds": 1}), data)
    found = Finding("ok", "values", "; ".join(notes) or "colors of 8 bits")
    spec = make_spec(typed, num_devices=mesh.devices.size)
    return spec, data, [line, found]


def _read(surveyed: Surveyed, copies: Copies, max_corrupt: float) -> Iterator[Finding]:
    """Yields findings about the images that were read."""
    surveys = surveyed.surveys.values()
    count = sum(len(found.ids) for found in surveys)
    total = sum(map(len, surveyed.parts.values()))
    num_bytes = sum(found.num_bytes for found in surveys)
    of = "all" if count == total else f"{count:,} evenly spaced of"
    yield Finding("ok", "read", f"{of} {total:,} images, {num_bytes / 2**20:,.1f} MiB")
    yield _sizes(list(surveys))
    bad = sum(len(found.damaged) for found in surveys)
    text = f"{bad:,} of {count:,} cannot be decoded"
    if bad > most_corrupt(max_corrupt, count):
        text += f", more than config.data.max_corrupt={max_corrupt} allows"
        yield Finding("FAIL", "damaged", f"{text}; repair or remove them")
    else:
        yield Finding("warn" if bad else "ok", "damaged", text)
    text = (
        f"{copies.number:,} of {count:,} images are copies of others; "
        f"{copies.leaked:,} queries are training images; {copies.contradictory:,} "
        "groups of copies have different classes"
    )
    yield Finding("warn" if copies.number else "ok", "copies", text)
    for name, source in surveyed.parts.items():
        if counts := data_page.class_counts(source, surveyed.surveys[name]):
            yield _balance(name, counts)


def _sizes(surveys: list[Survey]) -> Finding:
    sizes = np.concatenate([found.sizes for found in surveys])
    if not len(sizes):
        return Finding("FAIL", "sizes", "no image can be decoded")
    kinds = sum((found.kinds for found in surveys), surveys[0].kinds.__class__())
    short = sizes.min(1)
    formats = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(5))
    text = (
        f"short side {short.min():,} to {short.max():,} px, median "
        f"{np.median(short):,.0f}; {formats}"
    )
    return Finding("ok", "sizes", text)


def _balance(part: str, counts: Mapping[str, int]) -> Finding:
    largest = max(counts, key=lambda name: counts[name])
    smallest = min(counts, key=lambda name: counts[name])
    skewed = counts[largest] > SKEWED * counts[smallest]
    return Finding(
        "warn" if skewed else "ok",
        "classes",
        f"{part}: {len(counts):,} classes of {counts[smallest]:,} "
        + (
            "images each"
            if counts[smallest] == counts[largest]
            else f"({smallest}) to {counts[largest]:,} images ({largest})"
        ),
    )


class _Progress:
    """Prints how many images have been read and the time that is left, on stderr."""

    def __init__(self, part: str, total: int):
        self._part, self._total = part, total
        self._start = self._shown = time.monotonic()

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        if now - self._shown < EVERY:
            return
        self._shown = now
        left = (now - self._start) * (self._total - count) / count
        print(
            f"read {count:,} of {self._total:,} images of {self._part}, about "
            f"{left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )
