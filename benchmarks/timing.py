"""Alternating timing, so that other load on the machine affects all runs equally."""

import os
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def alternate(
    runs: Mapping[Name, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Returns the seconds of each run, timed alternately after a warm-up."""
    for run in runs.values():
        run()
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(measure(run, clock))
    return seconds


def measure(
    run: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Returns the seconds of one run."""
    start = clock()
    run()
    return clock() - start


def stay_on_one_core() -> None:
    """Restricts this process and its future threads to one core.

    Raises:
        SystemExit: if the operating system does not support this.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit(
            "this system cannot restrict a process to one core; give --all_cores"
        )
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
