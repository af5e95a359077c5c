"""Prefetching with Grain: threads or processes read ahead of the training loop."""

import contextlib
import errno
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from multiprocessing import resource_tracker
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(
    read: Callable[[int], T], numbers: range, *, threads: int = 0, workers: int = 0
) -> Generator[T]:
    """Yields read(i) for each of numbers, in order, read ahead by threads or processes.

    The processes do not react to SIGINT and SIGTERM, which terminals and schedulers
    send to all processes of a command: they read until this process has ended them.

    Args:
        read: function that depends only on i; must be picklable if `workers` > 0.
        numbers: consecutive integers.
        threads: number of reader threads per process; 0 for one per core, at most 16.
        workers: number of reader processes; 0 to use threads of this process.

    Raises:
        ChildProcessError: if a reader process has died.
        OSError: if the shared memory, through which processes pass images, is full.
    """
    import grain  # imported late: grain imports jax, which `prepare` does not need

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
            with _signals_blocked() if workers else contextlib.nullcontext():
                first = list(itertools.islice(results, 1))  # starts the processes
            yield from itertools.chain(first, results)
        except OSError as error:
            if not workers or error.errno != errno.ENOSPC:
                raise
            raise OSError(
                "the shared memory /dev/shm, through which reader processes pass "
                "images, is full; enlarge it, in Docker by --shm-size=8g, or use "
                "config.data.workers=0, or fewer workers"
            ) from error
        except RuntimeError as error:
            if not workers:
                raise
            raise ChildProcessError(
                f"a process that reads images failed: {error}"
            ) from error


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM in this thread.

    Threads and processes inherit it, so that it holds in a new process from its first
    instruction, before any of its Python code could ignore the signals. The handlers of
    this process run in its other threads, or afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_the_parent(index: int, count: int) -> None:
    """Makes this worker exit when its parent process ends, even by SIGKILL."""
    del index, count
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _mark_flags_parsed() -> None:
    """Marks absl flags as parsed, which Grain requires to start processes."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
