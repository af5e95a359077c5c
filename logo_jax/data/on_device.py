"""A data set that lives on the devices, dealt out by the step number alone."""

import dataclasses
from collections.abc import Generator
from typing import Any

import jax
import numpy as np

from logo_jax.data.sampler import ids_of_step
from logo_jax.methods.base import Examples
from logo_jax.training import train_step as step


@dataclasses.dataclass(frozen=True)
class Resident:
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
            rows = step.place(ids, self.sharding)
            yield _take(self.images, self.sizes, self.labels, rows), epoch


@jax.jit
def _take(images, sizes, labels, rows):
    return Examples(images[rows], sizes[rows], rows, labels[rows])
