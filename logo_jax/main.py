"""Trains what a config describes; the same command resumes where it stopped.

python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from logo_jax import _cli, configs
from logo_jax.experiment import Experiment, make_experiment
from logo_jax.methods.base import TrainState
from logo_jax.parallel import processes
from logo_jax.parallel.mesh import make_mesh, replicate
from logo_jax.training import preemption, workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.collapse import (
    MOST_ROLLBACKS,
    CollapseDetector,
    CollapseError,
    next_rollback,
    record_rollback,
    rollbacks,
)
from logo_jax.training.logging.metric_writer import (
    METRICS_FILE,
    MetricWriter,
    write_atomically,
)
from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.logging.wandb import WandbLogger
from logo_jax.training.loop import DataError, train
from logo_jax.visualization.train_images import ImageLogger


class Found(flags.ArgumentParser):
    """Parses a config that is found by its name, NAME or NAME:VARIANT.

    Args:
        of_path: parses a config of a path.
    """

    def __init__(self, of_path: flags.ArgumentParser):
        self._of_path = of_path

    def parse(self, argument: str) -> Any:
        """The config; raises FileNotFoundError where no file has the name."""
        name, colon, variant = argument.partition(":")
        return self._of_path.parse(f"{configs.find(name)}{colon}{variant}")


CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file, or a name in logo_jax's configs/; NAME or NAME:VARIANT."
)
flags.FLAGS[CONFIG.name].parser = Found(flags.FLAGS[CONFIG.name].parser)
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
    _cli.keep_compiled_code()
    with contextlib.ExitStack() as group:
        with _cli.input_errors():
            group.enter_context(
                processes.join_cluster(
                    os.environ,
                    coordinator=COORDINATOR.value,
                    num_processes=NUM_PROCESSES.value,
                    process_id=PROCESS_ID.value,
                )
            )
        # one of several cannot save alone: a signal ends it, and the others, at once
        stop = preemption.PreemptionHandler()
        if processes.is_alone():
            group.enter_context(stop)
        start_run(_cli.path(str(WORKDIR.value)).absolute(), stop)
        if stop.requested():
            stop.leave()


def start_run(folder: pathlib.Path, stop: preemption.PreemptionHandler) -> None:
    """Builds; restores and trains, again where the run is rolled back."""
    with (
        _cli.input_errors((DataError, OSError)),  # a full disk, above all
        contextlib.ExitStack() as held,
    ):
        with _cli.input_errors():
            if processes.is_first():
                workdir.check_config(folder, CONFIG.value.to_dict())
                workdir.require_free(folder)
            experiment = make_experiment(CONFIG.value, make_mesh())
            checkpoints = NullLogger()
            if processes.is_first():
                held.enter_context(workdir.lock_workdir(folder))
                workdir.claim_workdir(folder, CONFIG.value.to_dict())
                record_machine(folder, experiment.mesh)
                checkpoints = held.enter_context(
                    CheckpointManager(folder / "checkpoints")
                )
        try:
            while not attempt(experiment, checkpoints, folder, stop):
                pass
        except CollapseError as collapse:
            print("error:", collapse, file=sys.stderr)
            sys.exit(1)


def record_machine(folder: pathlib.Path, mesh: Mesh) -> None:
    """Says in the run's folder what this start of it runs on."""
    text = json.dumps(workdir.describe_machine(mesh), indent=2)
    write_atomically(folder / workdir.MACHINE_FILE, text + "\n")


def attempt(
    experiment: Experiment,
    checkpoints: CheckpointManager | NullLogger,
    folder: pathlib.Path,
    stop: preemption.PreemptionHandler,
) -> bool:
    """Trains on from the newest checkpoint; False where the run was rolled back.

    Raises:
        CollapseError: where the run has collapsed and is not to try again.
    """
    with _cli.input_errors():
        times = int(processes.broadcast_from_first(np.int32(len(rollbacks(folder)))))
        experiment = experiment.rolled_back(times)
        state = experiment.init()
        like = jax.eval_shape(experiment.spec.init)
        found = checkpoints.restore_latest(like) or (0, state)
    start, state = processes.broadcast_from_first(found)
    state = replicate(state, experiment.mesh)
    try:
        run(experiment, state, int(start), checkpoints, folder, stop)
    except CollapseError as collapse:
        if experiment.spec.config.monitor.health != "rollback":
            raise
        number = next_rollback(times, collapse)
        if processes.is_first():
            record_rollback(folder, collapse.step)
            line = f"{collapse}; rollback {number} of {MOST_ROLLBACKS}"
            print(line, file=sys.stderr)
        return False
    return True


def run(
    experiment: Experiment,
    state: TrainState,
    start: int,
    checkpoints: CheckpointManager | NullLogger,
    folder: pathlib.Path,
    stop: preemption.PreemptionHandler,
) -> None:
    """Trains from a state to the end, and says what was written where."""
    schedule, monitor = experiment.spec.schedule, experiment.monitor
    policy = experiment.spec.config.monitor.health
    again = (folder / METRICS_FILE).exists()
    writer = progress = NullLogger()
    image_logger = None
    if processes.is_first():
        with _cli.input_errors():
            loggers = open_loggers(experiment, folder)
            writer = MetricWriter(folder, resume_step=start, loggers=loggers)
        image_logger = ImageLogger(writer, folder, experiment, has_crops=start > 0)
        progress = Progress(schedule.num_steps, initial=start, quiet=QUIET.value)
    detector = CollapseDetector(policy, schedule.seeds, progress.say, progress.warn)
    log = TrainLog(
        writer,
        progress,
        schedule,
        collapse_detector=detector,
        image_logger=image_logger,
    )
    with writer, progress:
        progress.say(experiment.loading)
        if start:
            progress.say(f"resumed from step {start} of {schedule.num_steps}")
        elif again:
            progress.say(f"no checkpoint in {folder}: started from step 0 again")
        if not start and schedule.trivial_baselines and monitor:
            with _cli.input_errors():  # it reads the images
                baselines = monitor.trivial_baselines(state)
            for name, value in baselines.items():
                progress.say(f"baseline without training: {name}, kNN {value:.1f} %")
        train(
            state,
            experiment.train_step,
            experiment.loader,
            schedule,
            log=log,
            checkpoints=checkpoints,
            monitor=monitor,
            preemption=stop,
        )
        if processes.is_first():
            progress.say(f"wrote to {folder}: {', '.join(written(folder))}")


def open_loggers(experiment: Experiment, folder: pathlib.Path) -> list[WandbLogger]:
    """The loggers that a config asks for, beside TensorBoard."""
    project = experiment.spec.config.monitor.wandb
    config, quiet = CONFIG.value.to_dict(), QUIET.value
    if not project:
        return []
    return [WandbLogger(folder, project, config, quiet=quiet)]


def written(folder: pathlib.Path) -> list[str]:
    """Names in the folder, folders with a slash."""
    return sorted(f"{file.name}{'/' * file.is_dir()}" for file in folder.iterdir())


if __name__ == "__main__":
    _cli.run(main, required=("config", "workdir"))
