"""Data that a config describes: read, and dealt out to the devices."""

import dataclasses
import os
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from logo_jax.data import eval_crops
from logo_jax.data.canvas import canvas_size
from logo_jax.data.decode import Size
from logo_jax.data.load import ExperimentData, load_images
from logo_jax.data.loader import OnDeviceLoader, StepReader, StreamingLoader
from logo_jax.data.sources.base import ImageSource
from logo_jax.experiment.reader import Reader
from logo_jax.parallel.mesh import batch_sharding, replicate

Loader: TypeAlias = OnDeviceLoader | StreamingLoader

LOADERS = ("auto", "resident", "streamed")
SHARE = 1 / 4  # of a device's memory that a resident data set may take


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Where images are, and how they come to the devices.

    Attributes:
        where: arguments of `sources.load`.
        canvas: side to which larger images are reduced before they are cut, in pixels.
        loader: resident, streamed, or auto: resident where it takes up at most SHARE
            of a device's memory.
        max_corrupt: fraction of images that may be undecodable.
        threads: that decode at once; 0: one a core, at most 16.
        workers: processes that decode for a streamed data set; 0: none.
    """

    where: dict[str, Any]
    canvas: int
    loader: str
    max_corrupt: float
    threads: int
    workers: int


def make_data_spec(read: Reader) -> DataSpec:
    """What a config's data group says, but for the batch size.

    Raises:
        ValueError: for a value out of range.
    """
    return DataSpec(
        where={
            name: getattr(read, name)
            for name in ("source", "name", "path", "data_dir", "classes", "val_size")
        },
        canvas=read.canvas,
        loader=read.one_of("loader", LOADERS),
        max_corrupt=read.max_corrupt,
        threads=read.threads,
        workers=read.workers,
    )


def load_data(spec: DataSpec) -> ExperimentData:
    """The images of a config; those of one size decoded, where memory allows.

    Raises:
        ValueError: where they are not as described.
        FileNotFoundError: where they are not there.
    """
    train, bank, queries = load_images(**spec.where)
    kept = _in_memory(train, spec)
    return ExperimentData(
        train=kept,
        bank=kept if bank is train else bank and _in_memory(bank, spec),
        queries=queries and _in_memory(queries, spec),
    )


def _in_memory(images: ImageSource, spec: DataSpec) -> ImageSource:
    budget = SHARE * _host_memory()
    if images.largest is None or num_bytes(images, images.largest) > budget:
        return images
    return eval_crops.decode_all(
        images, max_corrupt=spec.max_corrupt, threads=spec.threads
    )


def make_loader(
    spec: DataSpec,
    images: ImageSource,
    mesh: Mesh,
    batch_size: int,
    seeds: tuple[int, ...],
) -> tuple[Loader, str]:
    """Batches of the images, and one line that says how they come.

    Args:
        spec: how a config wants them.
        images: to learn from.
        mesh: the devices.
        batch_size: images a step, over all devices.
        seeds: of the order.

    Raises:
        ValueError: if more images are corrupt than may be.
    """
    canvas = canvas_size(images, spec.canvas)
    needed, budget = num_bytes(images, canvas), SHARE * device_memory(mesh)[0]
    resident = spec.loader == "resident" or (spec.loader == "auto" and needed <= budget)
    line = (
        f"data: {len(images):,} images of {images.origin}, "
        f"{'resident' if resident else 'streamed'} at {canvas[0]}x{canvas[1]} px, "
        f"{needed / 2**30:.2f} GiB (up to {budget / 2**30:.1f} may be resident)"
    )
    sharding = batch_sharding(mesh, several=len(seeds) > 1)
    if not resident:
        read = StepReader(
            source=images,
            canvas=canvas,
            batch_size=batch_size,
            seeds=seeds,
            process=(jax.process_index(), jax.process_count()),
        )
        streamed = StreamingLoader(
            read, sharding, spec.max_corrupt, spec.threads, spec.workers
        )
        return streamed, line
    stored = eval_crops.read_all(
        images, canvas, max_corrupt=spec.max_corrupt, threads=spec.threads
    )
    pixels, sizes, labels = replicate(stored, mesh)
    return OnDeviceLoader(pixels, sizes, labels, batch_size, seeds, sharding), line


def num_classes(images: ImageSource, purpose: str) -> int:
    """Of images that show one class each, which a purpose needs.

    Raises:
        ValueError: where they have no labels, or several classes each.
    """
    several = images.num_classes and np.ndim(images.records([0])[0].label)
    if several or not images.num_classes:
        raise ValueError(
            f"{purpose} needs one class of each training image, and {images.origin} "
            f"has {'several' if several else 'no labels'}; do without, or with others"
        )
    return images.num_classes


def num_bytes(images: ImageSource, canvas: Size) -> int:
    """Bytes of all images on canvases of that (height, width)."""
    return len(images) * int(np.prod(canvas)) * 3


def device_memory(mesh: Mesh) -> tuple[float, str]:
    """Bytes that a device has, and whose they are."""
    stats = mesh.local_devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"], "the device's"
    return _host_memory() / len(mesh.local_devices), "its share of the host's"


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
