"""Measures the images per second that one core prepares, compared with Pillow.

python -m benchmarks.input [--folder=DIR] [--peer=torch] [--no_step]

The images are those of a folder, or the ten photographs as JPEGs of 500x375 pixels. In
the stages called "ours", images are decoded to a canvas on the host, and crops are cut
and their colors augmented by XLA. In the stages called "pillow", crops of the same
boxes are made with Pillow as torchvision does on the CPU; the last step, conversion to
a tensor and normalization, uses NumPy, or PyTorch with `--peer=torch` (`-e
".[bench]"`). The stages are timed alternately. Then the share of the augmentation in a
training step on CIFAR-10 is measured. Prints a table and one JSON line.
"""

import argparse
import dataclasses
import functools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from PIL.Image import Image

from benchmarks import jpegs, pillow_crops
from benchmarks.step import ours
from benchmarks.timing import alternate, stay_on_one_core
from logo_jax.augment import AugmentSpec, CropSpec, augment_crop, crop_boxes, make_views
from logo_jax.configs import base, cifar10_simsiam
from logo_jax.data.decode import Size, decode, decode_to_canvas
from logo_jax.experiment import make_spec, parse

ENCODINGS = (".jpg", ".jpeg", ".png", ".webp")
KEY = 0
LOOK = parse(base.get_config("moco")).augment.policy
LOOK = dataclasses.replace(LOOK, blur_prob=0.5)  # as MoCo v2
CUT_ONLY = dataclasses.replace(
    LOOK.without_changes(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
CIFAR_IMAGES = 128
Runs: TypeAlias = dict[
    str, Callable[[], Any]
]  # name of a stage -> function that runs it on one batch


class Work(NamedTuple):
    """Batch to process.

    Attributes:
        stored: encoded images or their files.
        sizes: height and width of the images, in pixels, int32 [b, 2].
        canvas: size of the canvas, in pixels.
        crops: the specs `global_crops` and `local_crops`.
    """

    stored: Sequence[bytes | Path]
    sizes: np.ndarray
    canvas: Size
    crops: dict[str, CropSpec]


def images_of(folder: str, count: int) -> list[bytes | Path]:
    """Returns `count` random images of a folder, or the photographs, repeated."""
    if not folder:
        encoded = jpegs.photographs(jpegs.IMAGENET_LIKE)
        return [encoded[i % len(encoded)] for i in range(count)]
    files = [f for f in Path(folder).rglob("*") if f.suffix.lower() in ENCODINGS]
    if len(files) < count:
        raise ValueError(f"{folder} holds {len(files)} images; use a smaller --images")
    chosen = np.random.default_rng(0).choice(len(files), count, replace=False)
    return [sorted(files)[i] for i in chosen]


def our_stages(work: Work) -> Runs:
    """Returns our stages: each on the output of the previous one, and combined."""
    ids = jnp.arange(len(work.stored))
    key = jax.random.key(KEY)

    def read() -> tuple[np.ndarray, np.ndarray]:
        images = np.zeros((len(ids), *work.canvas, 3), np.uint8)
        for canvas, encoded in zip(images, work.stored, strict=True):
            pixels, _ = decode_to_canvas(encoded, work.canvas)
            canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        return images, work.sizes

    def views(augment: AugmentSpec) -> Callable:
        cut = functools.partial(make_views, augment=augment, **work.crops)
        return jax.jit(lambda images, sizes: cut(key, images, sizes, ids))

    crop, augment = views(CUT_ONLY), views(LOOK)
    canvases = jax.device_put(read())
    crops = [group.reshape(-1, *group.shape[2:]) for group in crop(*canvases)]
    planes = jax.device_put(
        [np.asarray(group).transpose(0, 3, 1, 2) for group in crops]
    )
    return {
        "decode": lambda: [decode(image) for image in work.stored],
        "decode and canvas": read,
        "crops": lambda: jax.block_until_ready(crop(*canvases)),
        "color": lambda: jax.block_until_ready([recolor(key, x) for x in planes]),
        "crops and color": lambda: jax.block_until_ready(augment(*canvases)),
        "together": lambda: jax.block_until_ready(augment(*read())),
    }


@jax.jit
def recolor(key: jax.Array, crops: jax.Array) -> jax.Array:
    """Augments the colors of crops [n, 3, h, w] in [0, 1]; returns channels last."""
    look = jax.vmap(functools.partial(augment_crop, spec=LOOK))
    return look(jax.random.split(key, len(crops)), crops).transpose(0, 2, 3, 1)


def pillow_stages(work: Work, finish: pillow_crops.Finish) -> Runs:
    """Returns Pillow's stages: the same ones without the canvas, on the same boxes."""
    rng = np.random.default_rng(0)
    ids = jnp.arange(len(work.stored))
    groups = crop_boxes(jax.random.key(KEY), ids, jnp.asarray(work.sizes), **work.crops)
    boxes = [np.asarray(group).astype(int).tolist() for group in groups]
    sides = [spec.size for spec in work.crops.values()]

    def decode_all() -> list[Image]:
        return [pillow_crops.decode(image) for image in work.stored]

    def cut(pictures: Sequence[Image]) -> list[Image]:
        return [
            crop
            for i, picture in enumerate(pictures)
            for group, side in zip(boxes, sides, strict=True)
            for crop in pillow_crops.cut(picture, group[i], side)
        ]

    def recolor_all(crops: Sequence[Image]) -> list:
        return [pillow_crops.augment(crop, rng, LOOK, finish) for crop in crops]

    pictures = decode_all()
    crops = cut(pictures)
    return {
        "decode": decode_all,
        "crops": lambda: cut(pictures),
        "color": lambda: recolor_all(crops),
        "crops and color": lambda: recolor_all(cut(pictures)),
        "together": lambda: recolor_all(cut(decode_all())),
    }


def stage_rows(mine: Runs, theirs: Runs, images: int, rounds: int) -> Iterator[dict]:
    """Yields a row per stage: images per second of both, and their ratio."""
    runs = {("ours", stage): run for stage, run in mine.items()}
    runs |= {("pillow", stage): run for stage, run in theirs.items()}
    seconds = alternate(runs, rounds)
    for stage in mine:
        row: dict[str, str | float] = {"stage": stage}
        for route in ("ours", "pillow"):
            if (route, stage) in seconds:
                median = statistics.median(seconds[route, stage])
                row[route] = round(images / median, 2)
        if stage in theirs:
            pairs = zip(seconds["ours", stage], seconds["pillow", stage], strict=True)
            row["ratio"] = round(statistics.median(b / a for a, b in pairs), 3)
        yield row


def cifar_share(step_images: int, rounds: int) -> dict[str, float]:
    """Returns ms per image of augmentation and step, SimSiam-LoGo on CIFAR-10."""
    config = cifar10_simsiam.get_config()
    config.data.batch_size = step_images
    spec = make_spec(config, num_devices=1)
    views = functools.partial(
        make_views, augment=spec.config.augment.policy, **spec.crops
    )
    ids = np.arange(CIFAR_IMAGES, dtype=np.int32)
    noise = np.random.default_rng(0).integers(0, 256, (CIFAR_IMAGES, 32, 32, 3))
    arguments = jax.device_put(
        (jax.random.key(KEY), noise.astype(np.uint8), np.full((len(ids), 2), 32), ids)
    )
    augment = jax.jit(views)
    runs = {
        "augment": lambda: jax.block_until_ready(augment(*arguments)),
        "step": ours(config),
    }
    seconds = alternate(runs, rounds)
    augment_ms = 1e3 * min(seconds["augment"]) / CIFAR_IMAGES
    step_ms = 1e3 * min(seconds["step"]) / step_images
    return {
        "augment_ms": round(augment_ms, 4),
        "step_ms": round(step_ms, 2),
        "percent": round(100 * augment_ms / step_ms, 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="", help="folder of images, at any depth")
    parser.add_argument("--images", type=int, default=20, help="images in a batch")
    parser.add_argument(
        "--canvas", type=int, default=512, help="side of the canvas, in pixels"
    )
    parser.add_argument("--global_size", type=int, default=224)
    parser.add_argument("--local_size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", choices=["none", "torch"], default="none")
    parser.add_argument(
        "--step_images", type=int, default=16, help="batch size on CIFAR-10"
    )
    parser.add_argument("--step_rounds", type=int, default=2)
    parser.add_argument("--no_step", action="store_true")
    parser.add_argument("--all_cores", action="store_true", help="use all cores")
    flags = parser.parse_args(arguments)
    if not flags.all_cores:
        stay_on_one_core()
    rows = list(image_rows(flags))
    for row in rows:
        print("{stage:20s} {ours:9.1f} images/s".format(**row), end="")
        if "ratio" in row:
            print("{pillow:9.1f} by Pillow  {ratio:6.2f}x".format(**row), end="")
        print()
    cifar = None if flags.no_step else cifar_share(flags.step_images, flags.step_rounds)
    if cifar:
        line = (
            "CIFAR-10, ms per image: augmentation {augment_ms:.3f}, step {step_ms:.1f}"
        )
        print(line.format(**cifar), "({percent:.2f}%)".format(**cifar))
    print(
        json.dumps(
            {"jax": jax.__version__, **vars(flags), "rows": rows, "cifar": cifar}
        )
    )


def image_rows(flags: argparse.Namespace) -> Iterator[dict]:
    stored = images_of(flags.folder, flags.images)
    sizes = np.array([decode(image)[1] for image in stored], np.int32)
    height, width = np.minimum(sizes.max(axis=0), flags.canvas).tolist()
    crops = {
        "global_crops": CropSpec(2, flags.global_size, (0.4, 1.0)),
        "local_crops": CropSpec(2, flags.local_size, (0.05, 0.4)),
    }
    work = Work(stored, sizes, (height, width), crops)
    makers = {"none": pillow_crops.to_array, "torch": pillow_crops.to_tensor}
    theirs = pillow_stages(work, makers[flags.peer](LOOK))
    return stage_rows(our_stages(work), theirs, len(stored), flags.rounds)


if __name__ == "__main__":
    main()
