"""Data of a config: decoded in memory if they fit, and batches on the devices."""

import math
import os
from pathlib import Path
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from logo_jax.data import eval_crops
from logo_jax.data.canvas import canvas_size
from logo_jax.data.load import ExperimentData
from logo_jax.data.loader import OnDeviceLoader, StepReader, StreamingLoader
from logo_jax.data.sources.base import ImageSource
from logo_jax.experiment.config import DataConfig
from logo_jax.parallel.mesh import batch_sharding, replicate

Loader: TypeAlias = OnDeviceLoader | StreamingLoader

# files with the memory limit of a container, of cgroups version 2 and 1
CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
RESERVE = 0.1  # fraction of the host's memory for what a step does not count
SHARE = 1 / 4  # fraction of the memory of a device, or of the host, for a data set


def decode_in_memory(config: DataConfig, data: ExperimentData) -> ExperimentData:
    """Returns the same images; those of one size are decoded, if memory allows.

    Raises:
        ValueError: if more images are corrupt than `max_corrupt` allows.
    """
    train = _in_memory(data.train, config)
    bank, queries = data.bank, data.queries
    if bank is data.train:
        bank = train
    elif bank is not None:
        bank = _in_memory(bank, config)
    if queries is not None:
        queries = _in_memory(queries, config)
    return data._replace(train=train, bank=bank, queries=queries)


def _in_memory(images: ImageSource, config: DataConfig) -> ImageSource:
    budget = SHARE * _host_memory()
    if images.largest is None:
        return images
    if len(images) * config.num_bytes(images.largest) > budget:
        return images
    limits = {"max_corrupt": config.max_corrupt, "threads": config.threads}
    return eval_crops.decode_all(images, **limits)


def make_loader(
    config: DataConfig,
    images: ImageSource,
    mesh: Mesh,
    batch_size: int,
    seeds: tuple[int, ...],
) -> tuple[Loader, str]:
    """Returns a loader of batches, and a line that states where the images are kept.

    Args:
        config: the data group.
        images: the training images.
        mesh: the devices.
        batch_size: number of images per step, over all devices.
        seeds: seeds of the order of images.

    Raises:
        ValueError: if more images are corrupt than `max_corrupt` allows.
    """
    canvas = canvas_size(images, config.canvas)
    needed = len(images) * config.num_bytes(canvas)
    budget = SHARE * device_memory(mesh)
    fits = config.loader == "auto" and needed <= budget
    on_device = config.loader == "on_device" or fits
    classes = f" in {images.num_classes:,} classes" if images.num_classes else ""
    line = (
        f"data: {len(images):,} images of {images.origin}{classes}, "
        f"{'held in device memory' if on_device else 'decoded while training'} at "
        f"{canvas[0]}x{canvas[1]} px: {needed / 2**30:.2f} GiB "
        f"(limit {budget / 2**30:.1f})"
    )
    sharding = batch_sharding(mesh, several=len(seeds) > 1)
    limits = {"max_corrupt": config.max_corrupt, "threads": config.threads}
    if on_device:
        stored = eval_crops.read_all(images, canvas, **limits)
        pixels, sizes, labels = replicate(stored, mesh)
        loader = OnDeviceLoader(pixels, sizes, labels, batch_size, seeds, sharding)
        return loader, line
    read = StepReader(
        source=images,
        canvas=canvas,
        batch_size=batch_size,
        seeds=seeds,
        process=(jax.process_index(), jax.process_count()),
    )
    return StreamingLoader(read, sharding, workers=config.workers, **limits), line


def num_classes(images: ImageSource, purpose: str) -> int:
    """Returns the number of classes; raises if images are unlabeled or multi-label.

    Args:
        images: the training images.
        purpose: what needs the classes, to name in the message.

    Raises:
        ValueError: if the images have no labels or several classes per image.
    """
    several = images.num_classes and np.ndim(images.records([0])[0].label)
    if several or not images.num_classes:
        raise ValueError(
            f"{purpose} needs one class per training image, but {images.origin} has "
            f"{'several' if several else 'no labels'}; disable it, or use other images"
        )
    return images.num_classes


def device_memory(mesh: Mesh) -> float:
    """Returns the bytes of memory of a device; on CPUs, its share of the host's."""
    return _own_memory(mesh) or _host_memory() / len(mesh.local_devices)


def usable_memory(mesh: Mesh) -> tuple[float, str]:
    """Returns the bytes of a device that a run can use, and a text with their owner.

    On CPUs, that is what other processes leave of the host's memory, less a tenth for
    the program itself: a process that needs more is killed by the system.
    """
    if own := _own_memory(mesh):
        return own, "the device's"
    usable = (1 - RESERVE) * min(_host_memory(), _left_by_others())
    return usable / len(mesh.local_devices), "its share of the host's free"


def _own_memory(mesh: Mesh) -> float | None:
    """Bytes of memory that a device has for itself; None if it shares the host's."""
    return (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit")


def _host_memory() -> int:
    """Bytes of memory of this machine, or of this container if that has a limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path(file) for file in CGROUP_LIMITS]
    texts = [file.read_text().strip() for file in limits if file.is_file()]
    return min([physical, *(int(text) for text in texts if text.isdecimal())])


def _left_by_others() -> float:
    """Bytes that are free or in use by this process; unlimited if it is unknown."""
    if not Path("/proc/meminfo").is_file():
        return math.inf
    lines = Path("/proc/meminfo").read_text().splitlines()
    (free,) = (int(x.split()[1]) for x in lines if x.startswith("MemAvailable:"))
    own = int(Path("/proc/self/statm").read_text().split()[1])  # resident pages
    return 1024 * free + own * os.sysconf("SC_PAGE_SIZE")
