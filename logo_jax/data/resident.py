"""A data set that lives on the devices, dealt out by the step number alone."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order of examples in an epoch, [n]: a function of seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


@dataclasses.dataclass(frozen=True)
class Resident:
    """Batches of a data set of which every device holds a copy.

    Attributes:
        images: uint8 [n, h, w, c], on every device.
        batch_size: images a batch, over all devices; an epoch's remainder is dropped.
        seeds: of the order; each of several has a batch of its own.
        sharding: of a batch over devices.
    """

    images: jax.Array
    batch_size: int
    seeds: tuple[int, ...]
    sharding: Any

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.images) // self.batch_size

    @property
    def images_per_step(self) -> int:
        """Images of a batch, over all devices and seeds."""
        return self.batch_size * len(self.seeds)

    def batch(self, step: int) -> tuple[tuple[jax.Array, jax.Array], np.int32]:
        """Images [b, h, w, c] and ids [b] of a step, and its epoch.

        Of several seeds, with a leading axis.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        orders = _last_orders(self.seeds, epoch, len(self.images))
        ids = orders[:, position * self.batch_size :][:, : self.batch_size]
        ids = ids if len(self.seeds) > 1 else ids[0]
        rows = jax.device_put(ids, self.sharding)
        return (_take(self.images, rows), rows), np.int32(epoch)


@functools.lru_cache(maxsize=1)
def _last_orders(seeds, epoch, num_examples):
    """Orders [seeds, n] of an epoch, kept until the next is asked for."""
    orders = [epoch_order(seed, epoch, num_examples) for seed in seeds]
    return np.stack(orders).astype(np.int32)


_take = jax.jit(lambda images, rows: images[rows])
