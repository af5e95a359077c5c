"""Deterministic sampler: the images of a step depend only on (seed, step)."""

import functools

import numpy as np


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Random permutation of the examples in an epoch, [n], from seed and epoch."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def ids_of_step(
    step: int, seeds: tuple[int, ...], num_examples: int, batch_size: int
) -> tuple[np.ndarray, np.int32]:
    """Numbers of a step's examples, int32 [b], and its epoch; [seeds, b] of several.

    Args:
        step: from 0.
        seeds: of the permutation; each seed has its own.
        num_examples: of the data set; an incomplete last batch is dropped.
        batch_size: examples per step, over all devices, <= num_examples.
    """
    epoch, position = divmod(step, num_examples // batch_size)
    orders = _orders(seeds, epoch, num_examples)
    ids = orders[:, position * batch_size :][:, :batch_size]
    return (ids if len(seeds) > 1 else ids[0]), np.int32(epoch)


@functools.lru_cache(maxsize=2)
def _orders(seeds, epoch, num_examples):
    """Permutations [seeds, n] of an epoch; cached, as two epochs overlap in threads."""
    orders = [epoch_order(seed, epoch, num_examples) for seed in seeds]
    return np.stack(orders).astype(np.int32)
