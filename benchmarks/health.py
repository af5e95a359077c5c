"""Times a training step with and without the health metrics, alternately.

    python -m benchmarks.health --pairs=20 --large_pairs=5

The steps are those of the quickstart (LoGo) and of MoCo with the CIFAR ResNet-18, both
with 64 images, in one process and on the same crops. Prints the ratio with / without,
as median and quartiles over pairs of steps, for processor time (which other processes
affect less) and for wall time.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from benchmarks.step import ours
from logo_jax.configs import cifar10_moco, quickstart
from logo_jax.methods import gradient
from logo_jax.methods.base import Batch

BATCH_SIZE = 64
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--large_pairs", type=int, default=5)
    options = parser.parse_args()
    small = quickstart.get_config("logo")
    large = cifar10_moco.get_config("baseline")
    large.batch_norm, large.method.shuffle = "per_device", False
    report("quickstart, LoGo", small, options.pairs)
    report("ResNet-18, MoCo", large, options.large_pairs)


def report(name: str, config: ConfigDict, count: int) -> None:
    """Times pairs of steps and prints a row for each clock."""
    batch = crops_of(config)
    plain, full = without_health(config, batch), ours(config, batch)
    full()
    seconds = [pair(full, plain, reverse=bool(i % 2)) for i in range(count)]
    for clock in CLOCKS:
        ratios = [a[clock] / b[clock] for a, b in seconds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        mean = statistics.median(b[clock] for _, b in seconds)
        print(
            f"{name:17s} {count} pairs, {clock:9s} {mean:7.3f} s per step without; "
            f"ratio {middle:.4f} ({low:.4f} to {high:.4f})",
            flush=True,
        )


def crops_of(config: ConfigDict) -> Batch:
    """Returns random crops with the counts and sizes of a config."""
    rng = np.random.default_rng(0)
    groups = config.crops.global_crops, config.crops.local_crops
    shapes = [(BATCH_SIZE, count, side, side, 3) for count, side, _ in groups]
    return Batch(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def without_health(config: ConfigDict, batch: Batch) -> Callable[[], None]:
    """Returns a step that was compiled without the health metrics."""
    with replaced_health():
        run = ours(config, batch)
        run()
    return run


@contextlib.contextmanager
def replaced_health() -> Iterator[None]:
    """Steps that are traced in this context compute no health metrics."""
    measured = gradient.health_of
    gradient.health_of = lambda embeddings: {}
    try:
        yield
    finally:
        gradient.health_of = measured


def pair(
    full: Callable[[], None], plain: Callable[[], None], reverse: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the seconds of one run of each step, by clock."""
    seconds = {}
    for run in (plain, full) if reverse else (full, plain):
        before = {name: clock() for name, clock in CLOCKS.items()}
        run()
        seconds[run] = {name: clock() - before[name] for name, clock in CLOCKS.items()}
    return seconds[full], seconds[plain]


if __name__ == "__main__":
    main()
