"""Timing contenders in turns, so that a busy machine touches all alike."""

import os
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def alternate(
    runs: Mapping[Name, Callable[[], object]], rounds: int
) -> dict[Name, list[float]]:
    """Seconds of each run, taken in turns after one that warms up."""
    for run in runs.values():
        run()
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(measure(run))
    return seconds


def measure(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def stay_on_one_core() -> None:
    """Keeps this process, and the threads it has yet to start, on one core.

    Raises:
        SystemExit: where the operating system cannot.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system pins no process to a core; give --all_cores")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
