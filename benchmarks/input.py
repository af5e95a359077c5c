"""Images per second that one core decodes, cuts and recolours, beside Pillow.

python -m benchmarks.input [--folder=DIR] [--peer=torch] [--no_step]

Images are those of a folder, or the ten photographs as JPEGs of 500x375 pixels. Ours:
decoded and brought onto a canvas on the host, cut and recoloured by XLA. Pillow's: what
torchvision makes of the same boxes on the CPU; its last step, tensor and normalisation,
is NumPy's, or PyTorch's with `--peer=torch` (`-e ".[bench]"`). Both take turns. Then
the share of CIFAR-10's augmentation in a training step. Prints a table and one JSON
line.
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
from benchmarks.turns import alternate, stay_on_one_core
from logo_jax.augment import AugmentSpec, CropSpec, augment_crop, crop_boxes, make_views
from logo_jax.configs import base, cifar10_simsiam
from logo_jax.data.decode import Size, decode, decode_to_canvas
from logo_jax.experiment import make_spec

ENCODINGS = (".jpg", ".jpeg", ".png", ".webp")
KEY = 0
LOOK = AugmentSpec(**base.get_config("moco").augment)
LOOK = dataclasses.replace(LOOK, blur_prob=0.5)  # MoCo v2's
CUT_ONLY = dataclasses.replace(
    LOOK,
    flip_prob=0.0,
    jitter_prob=0.0,
    grayscale_prob=0.0,
    blur_prob=0.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
CIFAR_IMAGES = 128
Runs: TypeAlias = dict[str, Callable[[], Any]]  # name of a stage -> one batch of it


class Work(NamedTuple):
    """What everyone is to do.

    Attributes:
        stored: the batch, encoded.
        sizes: int32 [b, 2]: height and width of its images, in pixels.
        canvas: that they are brought onto.
        crops: `global_crops` and `local_crops`.
    """

    stored: Sequence[bytes | Path]
    sizes: np.ndarray
    canvas: Size
    crops: dict[str, CropSpec]


def images_of(folder: str, count: int) -> list[bytes | Path]:
    """So many images, of a folder at random or the photographs over and over."""
    if not folder:
        encoded = jpegs.photographs(jpegs.IMAGENET_LIKE)
        return [encoded[i % len(encoded)] for i in range(count)]
    files = [f for f in Path(folder).rglob("*") if f.suffix.lower() in ENCODINGS]
    if len(files) < count:
        raise ValueError(f"{folder} holds {len(files)} images; give --images fewer")
    chosen = np.random.default_rng(0).choice(len(files), count, replace=False)
    return [sorted(files)[i] for i in chosen]


def our_stages(work: Work) -> Runs:
    """Ours: each stage from what the one before it made, and several in one."""
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
        "colour": lambda: jax.block_until_ready([recolour(key, x) for x in planes]),
        "crops and colour": lambda: jax.block_until_ready(augment(*canvases)),
        "together": lambda: jax.block_until_ready(augment(*read())),
    }


@jax.jit
def recolour(key: jax.Array, crops: jax.Array) -> jax.Array:
    """Crops [n, 3, h, w] in [0, 1] as training sees them, channels last."""
    look = jax.vmap(functools.partial(augment_crop, spec=LOOK))
    return look(jax.random.split(key, len(crops)), crops).transpose(0, 2, 3, 1)


def pillow_stages(work: Work, finish: pillow_crops.Finish) -> Runs:
    """Pillow's: the same stages but the canvas, and the same boxes."""
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

    def recolour_all(crops: Sequence[Image]) -> list:
        return [pillow_crops.augment(crop, rng, LOOK, finish) for crop in crops]

    pictures = decode_all()
    crops = cut(pictures)
    return {
        "decode": decode_all,
        "crops": lambda: cut(pictures),
        "colour": lambda: recolour_all(crops),
        "crops and colour": lambda: recolour_all(cut(pictures)),
        "together": lambda: recolour_all(cut(decode_all())),
    }


def stage_rows(mine: Runs, theirs: Runs, images: int, rounds: int) -> Iterator[dict]:
    """One row a stage: images per second of both, and how ours compares."""
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
    """Milliseconds an image of SimSiam-LoGo's crops and of its step, on CIFAR-10."""
    config = cifar10_simsiam.get_config()
    config.data.batch_size = step_images
    spec = make_spec(config, num_devices=1)
    views = functools.partial(make_views, augment=spec.config.augment, **spec.crops)
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
    parser.add_argument("--folder", default="", help="of images, at any depth")
    parser.add_argument("--images", type=int, default=20, help="in a batch")
    parser.add_argument("--canvas", type=int, default=512, help="side, in pixels")
    parser.add_argument("--global_size", type=int, default=224)
    parser.add_argument("--local_size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", choices=["none", "torch"], default="none")
    parser.add_argument("--step_images", type=int, default=16, help="CIFAR's batch")
    parser.add_argument("--step_rounds", type=int, default=2)
    parser.add_argument("--no_step", action="store_true")
    parser.add_argument("--all_cores", action="store_true", help="do not stay on one")
    flags = parser.parse_args(arguments)
    if not flags.all_cores:
        stay_on_one_core()
    rows = list(image_rows(flags))
    for row in rows:
        print("{stage:20s} {ours:9.1f} images/s".format(**row), end="")
        if "ratio" in row:
            print("{pillow:9.1f} Pillow's  {ratio:6.2f}x".format(**row), end="")
        print()
    cifar = None if flags.no_step else cifar_share(flags.step_images, flags.step_rounds)
    if cifar:
        line = "CIFAR-10: {augment_ms:.3f} ms an image beside {step_ms:.1f} ms a step"
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
