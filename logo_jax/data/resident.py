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
        seed: of the order.
        sharding: of a batch over devices.
    """

    images: jax.Array
    batch_size: int
    seed: int
    sharding: Any

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.images) // self.batch_size

    def batch(self, step: int) -> tuple[tuple[jax.Array, jax.Array], np.int32]:
        """Images [b, h, w, c] and ids [b] of a step, and its epoch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _last_order(self.seed, epoch, len(self.images))
        ids = order[position * self.batch_size :][: self.batch_size].astype(np.int32)
        rows = jax.device_put(ids, self.sharding)
        return (_take(self.images, rows), rows), np.int32(epoch)


_last_order = functools.lru_cache(maxsize=1)(epoch_order)
_take = jax.jit(lambda images, rows: images[rows])
