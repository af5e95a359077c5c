"""Measures what one core reads of images that were reduced before training.

python -m benchmarks.reduced [--size 500 375] [--canvases 256 384 512]

The ten photographs, as JPEG files of one size, are written by `prepare --canvas` as
pixels and as JPEGs. Printed for the original files and for both formats: the images
that are read onto canvases in a processor second, alternately (median of rounds), the
bytes of an image on disk, and the PSNR in dB between the same crops cut from the canvas
and from the original image, mean (worst) over photographs and boxes, as by
benchmarks.canvas. Prints a table and one JSON line.
"""

import argparse
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import jpegs
from benchmarks.canvas import CUTS, decibels
from benchmarks.timing import alternate
from logo_jax.data.builders.canvases import write_canvases
from logo_jax.data.canvas import read_canvases
from logo_jax.data.decode import Pixels, Size, decode, decode_to_canvas
from logo_jax.data.load import DataLocation, load_images
from logo_jax.data.sources.base import ImageSource
from logo_jax.data.sources.canvases import FORMATS

FILES = "files"  # the original files


class Stored(NamedTuple):
    """An image as it is on a canvas after it was stored in a format.

    Attributes:
        source: the stored images.
        originals: the encoded original images, in the same order.
        side: side of the canvas, in pixels.
    """

    source: ImageSource
    originals: tuple[bytes, ...]
    side: int

    def __call__(self, encoded: bytes) -> tuple[Pixels, Size]:
        """Returns the stored image and its original size."""
        (record,) = self.source.records([self.originals.index(encoded)])
        pixels, _ = decode_to_canvas(record.image, (self.side, self.side))
        return pixels, decode(encoded)[1]


def rows_of(
    side: int, size: tuple[int, int], flags: argparse.Namespace
) -> Iterator[dict]:
    """Yields a row for the files and for each format."""
    encoded = tuple(jpegs.photographs(size))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / FILES).mkdir()
        for i, content in enumerate(encoded):
            (root / FILES / f"{i}.jpg").write_bytes(content)
        images = load_images(DataLocation("folder", path=str(root / FILES)))
        sources = {FILES: images.train}
        for name in FORMATS:
            write_canvases(images, side, root / name, format=name)
            location = DataLocation("canvases", path=str(root / name))
            sources[name] = load_images(location).train
        ids = np.arange(flags.images) % len(encoded)
        runs = {
            name: functools.partial(read_canvases, source, ids, (side, side))
            for name, source in sources.items()
        }
        seconds = alternate(runs, flags.rounds, time.process_time)
        for name, source in sources.items():
            stored = Stored(source, encoded, side)
            found = [decibels(x, [stored], flags.boxes)[stored] for x in encoded]
            yield {
                "canvas": side,
                "stored": name,
                "images/s": round(len(ids) / statistics.median(seconds[name])),
                "kB": round(num_bytes(source) / len(source) / 1e3, 1),
                "psnr": {cut: mean_and_worst(found, cut) for cut in CUTS},
            }


def num_bytes(source: ImageSource) -> int:
    """Returns the bytes of all images as they are stored."""
    stored = [record.image for record in source.records(range(len(source)))]
    return sum(
        x.stat().st_size if isinstance(x, Path) else len(bytes(x)) for x in stored
    )


def mean_and_worst(found: Sequence[Mapping[str, list[float]]], cut: str) -> list[float]:
    values = [x for one in found for x in one[cut]]
    return [round(statistics.mean(values), 1), round(min(values), 1)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=list(jpegs.IMAGENET_LIKE))
    parser.add_argument("--canvases", type=int, nargs="+", default=[256, 384, 512])
    parser.add_argument("--images", type=int, default=40, help="images in a batch")
    parser.add_argument("--boxes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    width, height = flags.size
    rows = [
        row for side in flags.canvases for row in rows_of(side, (width, height), flags)
    ]
    print("canvas stored images/s      kB", *(f"{name:>12s}" for name in CUTS))
    for row in rows:
        psnr = (f"{mean:5.1f} ({worst:4.1f})" for mean, worst in row["psnr"].values())
        line = "{canvas:6d} {stored:6s} {images/s:8d} {kB:7.1f}".format(**row)
        print(line, *psnr)
    load = [round(x, 1) for x in os.getloadavg()]
    print(json.dumps({**vars(flags), "load": load, "rows": rows}))


if __name__ == "__main__":
    main()
