"""Batches by step number: from device memory, or decoded while training."""

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
    """Images of a batch as they are stored, before crops are cut.

    Attributes:
        images: canvases, uint8 [b, h, w, 3]; an image lies in the upper left corner of
            its own, reduced along each axis where it is longer than the canvas.
        sizes: (height, width) of the originals in pixels, int32 [b, 2].
        ids: numbers of the images in their data set, int32 [b].
        labels: their classes, int32 [b], -1 where unknown; None: of none.
    """

    images: Any
    sizes: Any
    ids: Any
    labels: Any = None


@dataclasses.dataclass(frozen=True)
class OnDeviceLoader:
    """Batches of a data set of which every device holds a copy.

    Attributes:
        images: uint8 [n, h, w, c], on every device.
        sizes: of the originals, int32 [n, 2], on every device.
        labels: int32 [n], on every device.
        batch_size: images a batch, over all devices; an epoch's remainder is dropped.
        seeds: of the order; each of several has a batch of its own.
        sharding: of a batch over devices.
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
        """Images of a batch, over all devices and seeds."""
        return self.batch_size * len(self.seeds)

    def batches(self, start: int, stop: int) -> Generator[tuple[Examples, np.int32]]:
        """The examples of each step from start to stop - 1, and its epoch.

        Those of several seeds have a leading axis.
        """
        for number in range(start, stop):
            ids, epoch = ids_of_step(
                number, self.seeds, len(self.images), self.batch_size
            )
            rows = place(ids, self.sharding)
            yield _take(self.images, self.sizes, self.labels, rows), epoch


@jax.jit
def _take(images, sizes, labels, rows):
    return Examples(images[rows], sizes[rows], rows, labels[rows])


@dataclasses.dataclass(frozen=True)
class StepReader:
    """Reads what a process needs of a step: its share of the batch.

    Attributes:
        source: of images.
        canvas: (height, width), in pixels.
        batch_size: images a batch, over all processes; an epoch's remainder is dropped.
        seeds: of the order; each of several has a batch of its own.
        process: this one, and of how many; the batch is split over them in order.
    """

    source: ImageSource
    canvas: Size
    batch_size: int
    seeds: tuple[int, ...]
    process: tuple[int, int] = (0, 1)

    def __call__(self, step: int) -> tuple[Canvases, np.ndarray, np.int32]:
        """Canvases [b, ...], their ids [b], and the epoch; of several seeds [s, b]."""
        ids, epoch = ids_of_step(step, self.seeds, len(self.source), self.batch_size)
        index, count = self.process
        rows = self.batch_size // count
        ids = ids[..., index * rows : (index + 1) * rows]
        read = read_canvases(self.source, ids.ravel(), self.canvas)
        shaped = [part.reshape(*ids.shape, *part.shape[1:]) for part in read]
        return Canvases(*shaped), ids, epoch


@dataclasses.dataclass(frozen=True)
class StreamingLoader:
    """Batches of a data set that is decoded again in each epoch.

    They are those of `OnDeviceLoader`, for any number of threads, workers or processes.

    Attributes:
        read: what is read for a step.
        sharding: of a batch over devices.
        max_corrupt: fraction of images that may be undecodable.
        threads: that decode at once, in each worker; 0: one a core.
        workers: processes that decode; 0: threads of this one.
    """

    read: StepReader
    sharding: Any
    max_corrupt: float
    threads: int = 0
    workers: int = 0
    waits = True

    @property
    def images_per_step(self) -> int:
        """Images of a batch, over all devices and seeds."""
        return self.read.batch_size * len(self.read.seeds)

    def batches(self, start: int, stop: int) -> Generator[tuple[Examples, np.int32]]:
        """The examples of each step from start to stop - 1, and its epoch.

        A batch is on its way to the devices while the one before it is used.

        Raises:
            ValueError: when more images have failed than may.
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

    def _put(self, read: Canvases, ids: np.ndarray) -> Examples:
        put = jax.make_array_from_process_local_data
        rows = Examples(read.images, read.sizes, ids, read.labels)
        return Examples(*(put(self.sharding, part) for part in rows))
