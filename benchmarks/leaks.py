"""Trains 2,000 tiny steps with evaluations and checkpoints, and detects leaks.

    python -m benchmarks.leaks [OUT] --steps=2000

After the first 200 steps, the memory of the process and the number of arrays on the
devices must not grow, and no program may be compiled again. Exit code 1 otherwise.
"""

import argparse
import collections
import dataclasses
import gc
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import kill_soak
from benchmarks.memory import MB, held
from logo_jax import configs
from logo_jax.experiment import make_experiment
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import train

WARM_UP = 200  # steps
ALLOWED = 8.0  # MiB of growth per 1,000 steps; allocators keep freed memory
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@dataclasses.dataclass(frozen=True)
class Sample:
    """Memory and programs of a process after a step.

    Attributes:
        step: number of updates done.
        rss: resident memory, in MiB.
        arrays: number of live arrays on all devices.
        programs: number of programs lowered so far, whether compiled or found in the
            cache.
    """

    step: int
    rss: float
    arrays: int
    programs: int


class Watched:
    """Loader that takes a `Sample` every `every` steps, before the batch."""

    def __init__(self, loader, every: int):
        self.loader, self.every = loader, every
        self.waits, self.images_per_step = loader.waits, loader.images_per_step
        self.samples: list[Sample] = []
        self.programs: collections.Counter[str] = collections.Counter()
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def batches(self, start: int, stop: int):
        """Yields the batches of the loader and takes samples."""
        for step, batch in enumerate(self.loader.batches(start, stop), start):
            if step % self.every == 0:
                self.samples.append(taken(step, self.programs.total()))
            yield batch

    def _count(self, event: str, seconds: float, **of) -> None:
        del seconds
        if event == LOWERED:
            self.programs[of.get("fun_name", "?")] += 1


def taken(step: int, programs: int) -> Sample:
    """Takes a sample of this process."""
    gc.collect()
    return Sample(step, held("VmRSS") * MB / 2**20, len(jax.live_arrays()), programs)


def complaints(samples: Sequence[Sample]) -> list[str]:
    """Returns a line for each quantity that grows after the warm-up.

    >>> flat = [Sample(step, 100.0, 7, 3) for step in range(0, 1001, 100)]
    >>> complaints(flat)
    []
    """
    late = [sample for sample in samples if sample.step >= WARM_UP]
    steps = np.array([sample.step for sample in late])
    rate = 1000 * np.polyfit(steps, [sample.rss for sample in late], 1)[0]
    found = []
    if rate > ALLOWED:
        found.append(f"memory grows by {rate:.1f} MiB per 1,000 steps")
    for name in ("arrays", "programs"):
        first, last = (getattr(late[i], name) for i in (0, -1))
        if last > first:
            found.append(f"{name} grow from {first} to {last}")
    return found


def watched_run(folder: pathlib.Path, num_steps: int) -> Watched:
    """Trains the tiny run of `benchmarks.kill_soak` and takes samples."""
    kill_soak.write_data(folder)
    config = configs.load("cifar10_simsiam:logo", fields(folder, num_steps))
    experiment = make_experiment(config, make_mesh())
    loader = Watched(experiment.loader, every=40)
    with (
        CheckpointManager(folder / "checkpoints") as checkpoints,
        MetricWriter(folder, resume_step=0) as writer,
        Progress(num_steps, quiet=True) as progress,
    ):
        schedule = experiment.spec.schedule
        train(
            experiment.init(),
            experiment.train_step,
            loader,
            schedule,
            log=TrainLog(writer, progress, schedule),
            checkpoints=checkpoints,
            monitor=experiment.monitor,
        )
    return loader


def fields(folder: pathlib.Path, num_steps: int) -> dict:
    """Returns fields: those of kill_soak, local crops, a checkpoint every 20 steps."""
    return kill_soak.FIELDS | {
        "data.path": str(folder),
        "crops.global_crops": (2, 8, (0.4, 1.0)),
        "crops.local_crops": (2, 8, (0.1, 0.6)),
        "logo.regressor_width": 8,
        "monitor.knn": ((3, 0.1),),
        "monitor.knn_every_steps": 40,
        "train.checkpoint_every_steps": 20,
        "train.num_steps": num_steps,
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        watched = watched_run(options.out or pathlib.Path(temporary), options.steps)
    print("| step | RSS, MiB | live arrays | programs |\n|---|---|---|---|")
    for sample in watched.samples:
        values = (sample.step, f"{sample.rss:.1f}", sample.arrays, sample.programs)
        print("|", " | ".join(map(str, values)), "|")
    print("lowered:", ", ".join(f"{k} {n}" for k, n in watched.programs.most_common()))
    found = complaints(watched.samples)
    print("\n".join(found) or "flat")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
