"""Who comes when: the examples of a step are a function of seed and step alone."""

import functools

import numpy as np


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order of examples in an epoch, [n]: a function of seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def ids_of_step(
    step: int, seeds: tuple[int, ...], num_examples: int, batch_size: int
) -> tuple[np.ndarray, np.int32]:
    """The examples of a step, int32 [b], and its epoch; of several seeds [seeds, b].

    Args:
        step: from 0.
        seeds: of the order; each of several has an order of its own.
        num_examples: of the data set; an epoch's remainder is dropped.
        batch_size: examples a step, over all devices, <= num_examples.
    """
    epoch, position = divmod(step, num_examples // batch_size)
    orders = _orders(seeds, epoch, num_examples)
    ids = orders[:, position * batch_size :][:, :batch_size]
    return (ids if len(seeds) > 1 else ids[0]), np.int32(epoch)


@functools.lru_cache(maxsize=2)
def _orders(seeds, epoch, num_examples):
    """Orders [seeds, n] of an epoch, kept while threads pass from it to the next."""
    orders = [epoch_order(seed, epoch, num_examples) for seed in seeds]
    return np.stack(orders).astype(np.int32)
