"""Trains what a config describes; the same command resumes where it stopped.

    python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Exit codes: 0 done, or stopped by SIGTERM and resumable; 1 the run has collapsed, or an
error of the program; 2 bad input, damaged data or a full disk, told in one line on
stderr; 130 stopped by Ctrl-C and resumable.
"""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from logo_jax import _cli
from logo_jax.experiment import Experiment, make_experiment
from logo_jax.methods.base import TrainState
from logo_jax.parallel import processes
from logo_jax.parallel.mesh import make_mesh, replicate
from logo_jax.training import atomic, preemption, workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.collapse import (
    MOST_ROLLBACKS,
    CollapseDetector,
    CollapseError,
    next_rollback,
    record_rollback,
    rollbacks,
)
from logo_jax.training.logging.metric_writer import METRICS_FILE, MetricWriter
from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.logging.wandb import WandbLogger
from logo_jax.training.loop import DataError, train
from logo_jax.visualization.train_images import ImageLogger


class Job(NamedTuple):
    """What the command line asks for.

    Attributes:
        config: nested mappings of plain values.
        folder: of the run.
        stop: tells when to stop.
        quiet: whether nothing but errors is printed.
    """

    config: Mapping[str, Any]
    folder: pathlib.Path
    stop: preemption.PreemptionHandler
    quiet: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Joins the other processes, where there are any, and trains."""
    options = _parser().parse(arguments)
    with contextlib.ExitStack() as group:
        with _cli.input_errors():
            config = _cli.load_config(options).to_dict()
            _cli.keep_compiled_code()
            group.enter_context(
                processes.join_cluster(
                    os.environ,
                    coordinator=options.coordinator,
                    num_processes=options.num_processes,
                    process_id=options.process_id,
                )
            )
        # one of several processes cannot save alone: a signal ends all of them at once
        stop = preemption.PreemptionHandler()
        if processes.is_alone():
            group.enter_context(stop)
        start_run(Job(config, options.workdir.absolute(), stop, options.quiet))
        if stop.requested():
            stop.leave()


def start_run(job: Job) -> None:
    """Builds; restores and trains, again where the run is rolled back."""
    folder = job.folder
    with (
        _cli.input_errors((DataError, OSError)),  # a full disk, above all
        contextlib.ExitStack() as held,
    ):
        with _cli.input_errors():
            if processes.is_first():
                workdir.check_config(folder, job.config)
                workdir.require_free(folder)
            experiment = make_experiment(job.config, make_mesh())
            checkpoints = NullLogger()
            if processes.is_first():
                held.enter_context(workdir.lock_workdir(folder))
                workdir.claim_workdir(folder, job.config)
                record_machine(folder, experiment.mesh)
                checkpoints = held.enter_context(
                    CheckpointManager(folder / "checkpoints")
                )
        try:
            while not attempt(job, experiment, checkpoints):
                pass
        except CollapseError as collapse:
            print("error:", collapse, file=sys.stderr)
            sys.exit(1)


def record_machine(folder: pathlib.Path, mesh: Mesh) -> None:
    """Says in the run's folder what this start of it runs on."""
    text = json.dumps(workdir.describe_machine(mesh), indent=2)
    atomic.write_text(folder / workdir.MACHINE_FILE, text + "\n")


def attempt(
    job: Job,
    experiment: Experiment,
    checkpoints: CheckpointManager | NullLogger,
) -> bool:
    """Trains from the newest checkpoint; returns False if the run was rolled back.

    Raises:
        CollapseError: if the run has collapsed and must not start again.
    """
    with _cli.input_errors():
        times = int(
            processes.broadcast_from_first(np.int32(len(rollbacks(job.folder))))
        )
        experiment = experiment.rolled_back(times)
        like = jax.eval_shape(experiment.spec.init)
        restored = checkpoints.restore_latest(like)
        found = restored or (0, experiment.spec.first_state())
    start, state = processes.broadcast_from_first(found)
    state = replicate(state, experiment.mesh)
    try:
        run(job, experiment, state, int(start), checkpoints)
    except CollapseError as collapse:
        if experiment.spec.config.monitor.health != "rollback":
            raise
        number = next_rollback(times, collapse)
        if processes.is_first():
            record_rollback(job.folder, collapse.step)
            line = f"{collapse}; rollback {number} of {MOST_ROLLBACKS}"
            print(line, file=sys.stderr)
        return False
    return True


def run(
    job: Job,
    experiment: Experiment,
    state: TrainState,
    start: int,
    checkpoints: CheckpointManager | NullLogger,
) -> None:
    """Trains from a state to the end, and says what was written where."""
    folder = job.folder
    schedule, monitor = experiment.spec.schedule, experiment.monitor
    policy = experiment.spec.config.monitor.health
    again = (folder / METRICS_FILE).exists()
    writer = progress = NullLogger()
    image_logger = None
    if processes.is_first():
        with _cli.input_errors():
            loggers = open_loggers(job, experiment)
            writer = MetricWriter(folder, resume_step=start, loggers=loggers)
        image_logger = ImageLogger(writer, folder, experiment, has_crops=start > 0)
        progress = Progress(schedule.num_steps, initial=start, quiet=job.quiet)
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
            preemption=job.stop,
        )
        if processes.is_first():
            progress.say(f"wrote to {folder}: {', '.join(written(folder))}")


def open_loggers(job: Job, experiment: Experiment) -> list[WandbLogger]:
    """The loggers that a config asks for, beside TensorBoard."""
    project = experiment.spec.config.monitor.wandb
    if not project:
        return []
    return [WandbLogger(job.folder, project, job.config, quiet=job.quiet)]


def written(folder: pathlib.Path) -> list[str]:
    """Names in the folder, folders with a slash."""
    return sorted(
        f"{file.name}/" if file.is_dir() else file.name for file in folder.iterdir()
    )


def _parser() -> _cli.Parser:
    parser = _cli.Parser("main", __doc__, has_fields=True)
    parser.add_config("what to train", required=True)
    parser.add_workdir("folder of the run; made if absent")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0; needed only where the cluster is not detected",
    )
    parser.add_argument(
        "--num_processes",
        metavar="N",
        type=int,
        help="processes in all; 1: train alone, whatever started this process",
    )
    parser.add_argument(
        "--process_id", metavar="I", type=int, help="number of this process, from 0"
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
