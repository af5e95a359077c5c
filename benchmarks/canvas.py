"""Measures the time and the loss of quality of storing images on a canvas.

python -m benchmarks.canvas [--sides 256 384 512] [--filters box bilinear ...]

Along each axis, an image that is no longer than the canvas is stored exactly, and a
longer one is reduced to the canvas. The same crops of the ten photographs, as JPEG, are
cut from the image and from the canvas, and compared: PSNR in dB, mean and worst over
photographs and boxes. The error of rounding to uint8 is added, so that 58.92 means that
nothing is lost. Also measured are the milliseconds per image that one core takes to
decode and reduce it, without and with the scaling of the JPEG decoder (if that can be
used), and to cut crops by XLA. Prints tables and one JSON line.
"""

import argparse
import functools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks import jpegs
from benchmarks.timing import alternate, stay_on_one_core
from logo_jax.augment import CropSpec, make_views, resized_crop, sample_box
from logo_jax.configs import base
from logo_jax.data.decode import Pixels, Size, decode, shrink
from logo_jax.experiment import parse

FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")
CUTS = {
    "area 0.08": CropSpec(1, 224, (0.08, 0.08)),
    "area 0.4": CropSpec(1, 224, (0.4, 0.4)),
    "area 1": CropSpec(1, 224, (1.0, 1.0)),
    "local": CropSpec(1, 96, (0.05, 0.4)),
}
CUT_ONLY = parse(base.get_config("moco")).augment.policy.without_changes()
IMAGES_PER_CUT = 8
ROUNDING = (
    1 / 255**2 / 12
)  # squared error of rounding to uint8; smaller errors are invisible
Decibels: TypeAlias = dict[str, list[float]]  # name of a cut -> PSNR of each box


class Fit(NamedTuple):
    """Method of decoding an image and reducing it to a canvas.

    Attributes:
        side: side of the canvas, in pixels.
        filter: name of Pillow's resampling filter.
        scaled: whether a JPEG is decoded at a reduced size that covers the canvas.
    """

    side: int
    filter: str
    scaled: bool = False

    def __call__(self, encoded: bytes) -> tuple[Pixels, Size]:
        """Returns the reduced image and its original size."""
        canvas = (self.side, self.side)
        pixels, size = decode(encoded, at_least=canvas if self.scaled else None)
        resample = Image.Resampling[self.filter.upper()]
        return shrink(pixels, size, canvas, resample), size


@functools.partial(jax.jit, static_argnums=(1, 2))
def boxes_in(size: jax.Array, spec: CropSpec, count: int) -> jax.Array:
    """Returns random boxes, the same in every call: [count, 4], in image pixels."""
    keys = jax.random.split(jax.random.key(0), count)
    return jax.vmap(sample_box, in_axes=(0, None, None))(keys, size, spec)


def cut_from_image(pixels: Pixels, boxes: np.ndarray, side: int) -> np.ndarray:
    """Returns crops [n, 3, side, side] in [0, 1] of the image, by Pillow in float32."""
    planes = [
        Image.fromarray(plane) for plane in np.moveaxis(pixels.astype(np.float32), 2, 0)
    ]
    shape, bilinear = (side, side), Image.Resampling.BILINEAR
    crops = [
        [plane.crop((x, y, x + w, y + h)).resize(shape, bilinear) for plane in planes]
        for y, x, h, w in boxes.astype(int).tolist()
    ]
    return np.array([[np.asarray(plane) for plane in crop] for crop in crops]) / 255


@functools.partial(jax.jit, static_argnums=2)
def cut_from_canvas(canvas: jax.Array, boxes: jax.Array, side: int) -> jax.Array:
    """Returns crops [n, 3, side, side] in [0, 1]; boxes are in pixels of the canvas."""
    planes = jnp.moveaxis(canvas, 2, 0).astype(jnp.float32) / 255.0
    cut = functools.partial(resized_crop, size=side)
    return jax.vmap(cut, in_axes=(None, 0))(planes, boxes)


def decibels(encoded: bytes, fits: Sequence[Fit], count: int) -> dict[Fit, Decibels]:
    """Returns the PSNR of every crop of one image, for each fit."""
    whole, size = decode(encoded)
    boxes = {
        name: np.asarray(boxes_in(np.array(size), spec, count))
        for name, spec in CUTS.items()
    }
    wanted = {n: cut_from_image(whole, boxes[n], CUTS[n].size) for n in CUTS}
    found: dict[Fit, Decibels] = {}
    for fit in fits:
        pixels, _ = fit(encoded)
        canvas = np.zeros((fit.side, fit.side, 3), np.uint8)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        scale = np.tile(np.divide(pixels.shape[:2], size), 2).astype(np.float32)
        found[fit] = {}
        for name, spec in CUTS.items():
            crops = cut_from_canvas(canvas, boxes[name] * scale, spec.size)
            error = np.mean((np.asarray(crops) - wanted[name]) ** 2, axis=(1, 2, 3))
            found[fit][name] = (-10 * np.log10(error + ROUNDING)).tolist()
    return found


def fit_rows(
    images: Sequence[bytes], fits: Sequence[Fit], *, count: int, rounds: int
) -> Iterator[dict]:
    """Yields a row per fit: milliseconds per image, mean and worst PSNR of each cut."""
    found = [decibels(encoded, fits, count) for encoded in images]
    runs = {fit: functools.partial(fit_all, fit, images) for fit in fits}
    seconds = alternate(runs, rounds)
    for fit in fits:
        every = {n: [x for one in found for x in one[fit][n]] for n in CUTS}
        yield {
            **fit._asdict(),
            "photographs": len(images),
            "ms": round(1e3 * min(seconds[fit]) / len(images), 3),
            "psnr": {
                name: [round(statistics.mean(values), 2), round(min(values), 2)]
                for name, values in every.items()
            },
        }


def fit_all(fit: Fit, images: Sequence[bytes]) -> None:
    for encoded in images:
        fit(encoded)


def scaled_rows(images: Sequence[bytes], flags: argparse.Namespace) -> Iterator[dict]:
    """Yields rows of fit_rows without and with scaling by the JPEG decoder."""
    for side in flags.sides:
        large = reducible(images, side)
        fits = [Fit(side, f, scaled) for f in flags.filters for scaled in (False, True)]
        if large:
            yield from fit_rows(large, fits, count=flags.boxes, rounds=flags.rounds)


def reducible(images: Sequence[bytes], side: int) -> list[bytes]:
    """Returns the images of at least twice the canvas, which the decoder can scale."""
    return [x for x in images if min(decode(x)[1]) >= 2 * side]


def cut_rows(sides: Sequence[int], rounds: int) -> Iterator[dict]:
    """Yields a row per canvas: bytes, and milliseconds to cut 2 x 224 and 2 x 96 px."""
    runs = {side: cutter(side) for side in sides}
    for side, seconds in alternate(runs, rounds).items():
        milliseconds = 1e3 * min(seconds) / IMAGES_PER_CUT
        yield {"side": side, "bytes": 3 * side**2, "ms": round(milliseconds, 3)}


def cutter(side: int) -> Callable[[], object]:
    """Returns a function that cuts crops of a batch of canvases and waits for them."""
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (IMAGES_PER_CUT, side, side, 3), np.uint8)
    sizes = np.tile(np.array([375, 500], np.int32), (IMAGES_PER_CUT, 1))
    cut = jax.jit(
        functools.partial(
            make_views,
            global_crops=CropSpec(2, 224, (0.4, 1.0)),
            local_crops=CropSpec(2, 96, (0.05, 0.4)),
            augment=CUT_ONLY,
        )
    )
    arguments = jax.device_put(
        (jax.random.key(0), images, sizes, np.arange(IMAGES_PER_CUT, dtype=np.int32))
    )
    return lambda: jax.block_until_ready(cut(*arguments))


def print_fits(title: str, rows: Sequence[dict]) -> None:
    """Prints rows of fit_rows as a table."""
    print(f"\n{title}; PSNR in dB, mean (worst)")
    print("side filter    scaled  of     ms", *(f"{name:>14s}" for name in CUTS))
    for row in rows:
        row_of = "{side:4d} {filter:9s} {scaled!s:6s} {photographs:3d} {ms:6.2f}"
        psnr = (f"{mean:6.2f} ({worst:5.2f})" for mean, worst in row["psnr"].values())
        print(row_of.format(**row), *psnr)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 384, 512])
    parser.add_argument("--filters", nargs="+", choices=FILTERS, default=FILTERS)
    parser.add_argument(
        "--boxes", type=int, default=20, help="number of boxes per photograph and cut"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all_cores", action="store_true", help="use all cores")
    flags = parser.parse_args(arguments)
    if not flags.all_cores:
        stay_on_one_core()
    fits = [Fit(side, name) for side in flags.sides for name in flags.filters]
    settings = {"count": flags.boxes, "rounds": flags.rounds}
    imagenet_like, whole = jpegs.photographs(jpegs.IMAGENET_LIKE), jpegs.photographs()
    tables = {
        "500x375": list(fit_rows(imagenet_like, fits, **settings)),
        "whole": list(fit_rows(whole, fits, **settings)),
        "large": list(scaled_rows(whole, flags)),
    }
    for title, rows in tables.items():
        print_fits(title, rows)
    cuts = list(cut_rows(flags.sides, flags.rounds))
    print(f"\n2 x 224 and 2 x 96 px crops cut by XLA on {jax.default_backend()}")
    for row in cuts:
        print("{side:4d} {bytes:7d} bytes {ms:8.2f} ms per image".format(**row))
    print(json.dumps({"jax": jax.__version__, **vars(flags), **tables, "cuts": cuts}))


if __name__ == "__main__":
    main()
