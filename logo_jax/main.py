"""Trains what a config describes; the same command resumes where it stopped.

python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Sequence

import jax
from absl import flags
from ml_collections import config_flags

from logo_jax import command, compose, hosts, step, workdir
from logo_jax.checkpoints import Checkpoints
from logo_jax.metrics import MetricWriter, Progress
from logo_jax.state import TrainState
from logo_jax.train import DataError, train

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, FILE.py or FILE.py:VARIANT."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if absent.")
QUIET = flags.DEFINE_bool("quiet", False, "Nothing on the terminal but errors.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where nothing says who belongs."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "In all; 1: train alone, whatever started this process."
)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of this process, from 0.")


def main(argv: Sequence[str]) -> None:
    """Joins the other processes, where there are any, and trains."""
    del argv
    command.keep_compiled_code()
    with contextlib.ExitStack() as group:
        with command.input_errors():
            group.enter_context(
                hosts.joined(
                    os.environ,
                    coordinator=COORDINATOR.value,
                    num_processes=NUM_PROCESSES.value,
                    process_id=PROCESS_ID.value,
                )
            )
        start_run(pathlib.Path(str(WORKDIR.value)).absolute())


def start_run(folder: pathlib.Path) -> None:
    """Builds, restores, trains."""
    with command.input_errors():
        mesh = step.make_mesh()
        experiment = compose.experiment(CONFIG.value, mesh)
        if hosts.is_first():
            workdir.claim(folder, CONFIG.value.to_dict())
            checkpoints = Checkpoints(folder / "checkpoints")
        else:
            checkpoints = hosts.Follower()
    with checkpoints:
        with command.input_errors():
            state = experiment.init()
            like = jax.eval_shape(experiment.description.init)
            found = checkpoints.restore_latest(like)
        start, state = hosts.from_first(found or (0, state))
        run(experiment, step.replicate(state, mesh), int(start), checkpoints, folder)


def run(
    experiment: compose.Experiment,
    state: TrainState,
    start: int,
    checkpoints: Checkpoints | hosts.Follower,
    folder: pathlib.Path,
) -> None:
    """Trains from a state to the end, and says what was written where."""
    plan, monitor = experiment.description.plan, experiment.monitor
    if hosts.is_first():
        writer = MetricWriter(folder, resume_step=start)
        progress = Progress(plan.num_steps, initial=start, quiet=QUIET.value)
    else:
        writer = progress = hosts.Follower()
    with writer, progress:
        progress.say(experiment.loading)
        if start:
            progress.say(f"resumed from step {start} of {plan.num_steps}")
        elif plan.floors and monitor:
            for name, value in monitor.floors(state).items():
                progress.say(f"floor: {name}, kNN {value:.1f} %")
        with command.input_errors((DataError,)):
            train(
                state,
                experiment.train_step,
                experiment.loader,
                plan,
                monitor=monitor,
                checkpoints=checkpoints,
                writer=writer,
                progress=progress,
                clock=time.perf_counter,
            )
        if hosts.is_first():
            progress.say(f"wrote to {folder}: {', '.join(written(folder))}")


def written(folder: pathlib.Path) -> list[str]:
    """Names in the folder, folders with a slash."""
    return sorted(f"{file.name}{'/' * file.is_dir()}" for file in folder.iterdir())


if __name__ == "__main__":
    command.run(main, required=("config", "workdir"))
