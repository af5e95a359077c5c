"""Reading ahead with Grain: threads or processes work while the device does."""

import contextlib
import multiprocessing
import os
import threading
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

    Raises:
        ChildProcessError: where such a process was ended.
    """
    import grain  # imports jax, which whoever only prepares data need not wait for

    threads = threads or min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    dataset = grain.MapDataset.range(numbers.start, numbers.stop).map(read)
    ahead: Any = dataset.to_iter_dataset(options)
    if workers:
        _mark_flags_parsed()
        processes = grain.MultiprocessingOptions(num_workers=workers)
        ahead = ahead.mp_prefetch(processes, worker_init_fn=_die_with_the_parent)
    with contextlib.closing(iter(ahead)) as results:
        try:
            yield from results
        except RuntimeError as error:
            if not workers:
                raise
            raise ChildProcessError(f"a process that reads images: {error}") from error


def _die_with_the_parent(index: int, count: int) -> None:
    """Ends this worker when its parent is gone, also where that had no time to ask."""
    del index, count
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _mark_flags_parsed() -> None:
    """Lets Grain's processes start under a command that has no absl flags."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
