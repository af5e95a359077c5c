"""Deterministic sampler: the images of a step depend only on (seed, step)."""

import functools

import numpy as np


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the permutation [n] of the examples that seed and epoch determine."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def ids_of_step(
    step: int, seeds: tuple[int, ...], num_examples: int, batch_size: int
) -> tuple[np.ndarray, np.int32]:
    """Returns the example numbers and the epoch of a step.

    Args:
        step: step number, starting at 0.
        seeds: seeds of the permutations; each seed has its own permutation.
        num_examples: size of the data set; the incomplete last batch of an epoch is
            dropped.
        batch_size: examples per step over all devices, <= num_examples.

    Returns:
        Example numbers, int32 [b], or [s, b] for s > 1 seeds; and the epoch.
    """
    epoch, position = divmod(step, num_examples // batch_size)
    orders = _orders(seeds, epoch, num_examples)
    ids = orders[:, position * batch_size :][:, :batch_size]
    return (ids if len(seeds) > 1 else ids[0]), np.int32(epoch)


@functools.lru_cache(maxsize=2)
def _orders(seeds, epoch, num_examples):
    """Returns the permutations [seeds, n] of an epoch.

    Two epochs are cached because reader threads work across epoch boundaries.
    """
    orders = [epoch_order(seed, epoch, num_examples) for seed in seeds]
    return np.stack(orders).astype(np.int32)
