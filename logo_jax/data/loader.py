"""Loaders of training batches: from device memory, or decoded during training."""

import contextlib
import dataclasses
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import numpy as np

from logo_jax.data.canvas import Canvases, CorruptCounter, read_canvases
from logo_jax.data.decode import Size
from logo_jax.data.prefetch import read_ahead
from logo_jax.data.sampler import ids_of_step
from logo_jax.data.sources.base import ImageSource
from logo_jax.parallel.mesh import place


class Examples(NamedTuple):
    """Batch of images before augmentation.

    Attributes:
        images: canvases [b, h, w, c] of the stored type, such as uint8; each image is
            in the upper left corner of its canvas, downscaled along each axis that is
            longer than the canvas.
        sizes: (height, width) of the original images in pixels, int32 [b, 2].
        ids: numbers of the images in the data set, int32 [b].
        labels: classes of the images, int32 [b], -1 if unknown.
    """

    images: Any
    sizes: Any
    ids: Any
    labels: Any = None


@dataclasses.dataclass(frozen=True)
class OnDeviceLoader:
    """Loader for a data set that is replicated in the memory of every device.

    Attributes:
        images: canvases of all images, of the stored type, [n, h, w, c], on every
            device.
        sizes: (height, width) of the original images in pixels, int32 [n, 2], on every
            device.
        labels: classes of the images, int32 [n], on every device.
        batch_size: images per batch over all devices; the incomplete last batch of an
            epoch is dropped.
        seeds: seeds of the image order; each seed has its own batch.
        sharding: sharding of a batch over devices.
    """

    images: jax.Array
    sizes: jax.Array
    labels: jax.Array
    batch_size: int
    seeds: tuple[int, ...]
    sharding: Any
    waits = False

    @property
    def images_per_step(self) -> int:
        """Number of images per step, over all devices and seeds."""
        return self.batch_size * len(self.seeds)

    def batches(self, start: int, stop: int) -> Generator[tuple[Examples, np.int32]]:
        """Yields the examples and the epoch of each step from start to stop - 1.

        With more than one seed, the arrays have a leading seed axis.
        """
        for number in range(start, stop):
            ids, epoch = ids_of_step(
                number, self.seeds, len(self.images), self.batch_size
            )
            rows = place(ids, self.sharding)
            yield _take(self.images, self.sizes, self.labels, rows), epoch

    def shapes(self) -> Examples:
        """Returns the shapes, dtypes and shardings of the examples of a step."""
        canvas, dtype = self.images.shape[1:], self.images.dtype
        return example_shapes(self.batch_size, self.seeds, canvas, dtype, self.sharding)


@jax.jit
def _take(images, sizes, labels, rows):
    return Examples(images[rows], sizes[rows], rows, labels[rows])


@dataclasses.dataclass(frozen=True)
class StepReader:
    """Reads this process's share of the batch of a step.

    Attributes:
        source: image source to read from.
        canvas: (height, width) in pixels.
        batch_size: images per batch over all processes; the incomplete last batch of an
            epoch is dropped.
        seeds: seeds of the image order; each seed has its own batch.
        process: (index of this process, number of processes); the batch is split over
            the processes in order.
    """

    source: ImageSource
    canvas: Size
    batch_size: int
    seeds: tuple[int, ...]
    process: tuple[int, int] = (0, 1)

    def __call__(self, step: int) -> tuple[Canvases, np.ndarray, np.int32]:
        """Returns canvases [b, ...], ids [b] and epoch; [s, b, ...] for s > 1 seeds."""
        ids, epoch = ids_of_step(step, self.seeds, len(self.source), self.batch_size)
        index, count = self.process
        rows = self.batch_size // count
        ids = ids[..., index * rows : (index + 1) * rows]
        read = read_canvases(self.source, ids.ravel(), self.canvas)
        shaped = [part.reshape(*ids.shape, *part.shape[1:]) for part in read]
        return Canvases(*shaped), ids, epoch


@dataclasses.dataclass(frozen=True)
class StreamingLoader:
    """Loader for a data set that is decoded again in each epoch.

    The batches are identical to those of `OnDeviceLoader`, for any number of threads,
    workers or processes.

    Attributes:
        read: reader of this process's share of a batch.
        sharding: sharding of a batch over devices.
        max_corrupt: largest allowed fraction of undecodable images.
        threads: number of decoding threads in each worker; 0 for one per core.
        workers: number of decoding processes; 0 to decode in threads of this process.
    """

    read: StepReader
    sharding: Any
    max_corrupt: float
    threads: int = 0
    workers: int = 0
    waits = True

    @property
    def images_per_step(self) -> int:
        """Number of images per step, over all devices and seeds."""
        return self.read.batch_size * len(self.read.seeds)

    def batches(self, start: int, stop: int) -> Generator[tuple[Examples, np.int32]]:
        """Yields the examples and the epoch of each step from start to stop - 1.

        The next batch is transferred to the devices while the current one is used.

        Raises:
            ValueError: if more images are undecodable than allowed.
        """
        skipped = CorruptCounter(self.read.source, self.max_corrupt)
        reading = read_ahead(
            self.read, range(start, stop), threads=self.threads, workers=self.workers
        )
        ready = None
        with contextlib.closing(reading):
            for canvases, ids, epoch in reading:
                skipped.add(ids, canvases.failed)
                following = self._put(canvases, ids), epoch
                if ready:
                    yield ready
                ready = following
        if ready:
            yield ready

    def shapes(self) -> Examples:
        """Returns the shapes, dtypes and shardings of the examples of a step."""
        read = self.read
        (first,) = read.source.records([0])
        channels, dtype = first.pixel
        canvas = (*read.canvas, channels)
        return example_shapes(read.batch_size, read.seeds, canvas, dtype, self.sharding)

    def _put(self, read: Canvases, ids: np.ndarray) -> Examples:
        put = jax.make_array_from_process_local_data
        rows = Examples(read.images, read.sizes, ids, read.labels)
        return Examples(*(put(self.sharding, part) for part in rows))


def example_shapes(
    batch_size: int,
    seeds: tuple[int, ...],
    canvas: tuple[int, ...],
    dtype: Any,
    sharding: Any,
) -> Examples:
    """Returns the shapes, dtypes and shardings of the examples of a step.

    Args:
        batch_size: images per batch over all devices.
        seeds: seeds of the order of images.
        canvas: (height, width, channels) of a stored image.
        dtype: dtype of its values.
        sharding: sharding of a batch over devices.
    """
    rows = (len(seeds), batch_size) if len(seeds) > 1 else (batch_size,)

    def shape(*axes: int, dtype: Any = np.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*rows, *axes), dtype, sharding=sharding)

    return Examples(shape(*canvas, dtype=dtype), shape(2), shape(), shape())
