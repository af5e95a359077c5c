"""Reading ahead with Grain: threads or processes work while the device does."""

import contextlib
import os
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(
    read: Callable[[int], T], numbers: range, *, threads: int = 0, workers: int = 0
) -> Generator[T]:
    """read(i) for each of numbers, in order, whoever does it; closes what it opens.

    Args:
        read: a function of i alone; it is pickled for processes.
        numbers: consecutive.
        threads: that read at once, in each process; 0: one a core, at most 16.
        workers: processes that read; 0: this one.
    """
    import grain  # imports jax, which whoever only prepares data need not wait for

    threads = threads or min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    dataset = grain.MapDataset.range(numbers.start, numbers.stop).map(read)
    ahead: Any = dataset.to_iter_dataset(options)
    if workers:
        _mark_flags_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    with contextlib.closing(iter(ahead)) as results:
        yield from results


def _mark_flags_parsed() -> None:
    """Lets Grain's processes start under a command that has no absl flags."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
