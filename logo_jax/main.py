"""Trains the experiment that a config describes; the same command resumes a run.

    python -m logo_jax.main --config=configs/cifar10_simsiam.py

The run is written to runs/<config>, or runs/<config>_<variant>, unless --workdir names
another folder. CIFAR-10, CIFAR-100, STL-10, MIT-67 and FGVC-Aircraft are downloaded and
prepared first if they are missing.

Exit codes: 0 if the run is complete, or was stopped by SIGTERM and can be resumed; 1 if
the run has collapsed, or for an error in the program; 2 for bad input, corrupt data or
a full disk, which is reported in one line on stderr; 130 if the run was stopped by
Ctrl-C and can be resumed.
"""

import contextlib
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from logo_jax import _cli
from logo_jax.data.load import prepare_missing
from logo_jax.experiment import Experiment, make_experiment
from logo_jax.experiment.config import parse
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
    """A run to train, as the command line describes it.

    Attributes:
        config: the experiment's config as nested mappings of plain values.
        folder: the run's folder, an absolute path.
        stop: receives the signals that stop the run.
        quiet: whether only errors and collapses are printed.
    """

    config: Mapping[str, Any]
    folder: pathlib.Path
    stop: preemption.PreemptionHandler
    quiet: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the run of a command line; first joins its cluster's processes, if any."""
    options = _parser().parse(arguments)
    folder = options.workdir or _cli.default_workdir(options.config)
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
        # one of several processes cannot save alone: a signal ends all of them
        stop = preemption.PreemptionHandler()
        if processes.is_alone():
            group.enter_context(stop)
        start_run(Job(config, folder.absolute(), stop, options.quiet))
        if stop.requested():
            stop.leave()


def start_run(job: Job) -> None:
    """Builds the experiment and trains it, again after each rollback."""
    folder = job.folder
    with (
        _cli.input_errors((DataError, OSError)),  # such as a full disk
        contextlib.ExitStack() as held,
    ):
        with _cli.input_errors():
            if processes.is_first():
                workdir.check_config(folder, job.config)
                workdir.require_free(folder)
            config = parse(job.config)
            if processes.is_alone():  # several may have one disk, or one each
                prepare_missing(config.data.location, quiet=job.quiet)
            experiment = make_experiment(config, make_mesh())
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
    """Writes the machine that this start of the run uses to the run's folder."""
    text = json.dumps(workdir.describe_machine(mesh), indent=2)
    atomic.write_text(folder / workdir.MACHINE_FILE, text + "\n")


def attempt(
    job: Job,
    experiment: Experiment,
    checkpoints: CheckpointManager | NullLogger,
) -> bool:
    """Trains from the newest checkpoint; returns False if the run was rolled back.

    Raises:
        CollapseError: if the run has collapsed and is not to be started again.
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
    """Trains from a state to the end; prints what was written and what to do next."""
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
        progress.say(headline(experiment, folder))
        progress.say(experiment.loading)
        if start:
            progress.say(f"resumed from step {start} of {schedule.num_steps}")
        elif again:
            progress.say(f"no checkpoint in {folder}: starting again from step 0")
        if not start and schedule.trivial_baselines and monitor:
            with _cli.input_errors():  # it reads the images
                baselines = monitor.trivial_baselines(state)
            for name, value in baselines.items():
                progress.say(f"baseline without training: {name}, kNN {value:.1f} %")
        trained = train(
            state,
            experiment.train_step,
            experiment.loader,
            schedule,
            log=log,
            checkpoints=checkpoints,
            monitor=monitor,
            preemption=job.stop,
        )
        if processes.is_first() and int(np.max(trained.step)) == schedule.num_steps:
            progress.say(f"done; wrote {', '.join(written(folder))} to {shown(folder)}")
            for line in next_commands(folder, can_evaluate=monitor is not None):
                progress.say(line)


def headline(experiment: Experiment, folder: pathlib.Path) -> str:
    """The first line of a run: its images, length, devices and folder."""
    schedule, data = experiment.spec.schedule, experiment.spec.config.data
    epochs = schedule.num_steps / schedule.steps_per_epoch
    return (
        f"training on {data.location.title} for {schedule.num_steps:,} steps of "
        f"{data.batch_size} images (epochs: {epochs:.4g}), on "
        f"{workdir.describe_machine(experiment.mesh)['devices']}, in {shown(folder)}"
    )


def next_commands(folder: pathlib.Path, *, can_evaluate: bool) -> list[str]:
    """Lines that propose commands for a run that is complete."""
    name = shlex.quote(shown(folder))
    report = f"next, draw a report: python -m logo_jax.report {name}"
    if not can_evaluate:  # there are no labels
        return [report]
    command = f"python -m logo_jax.evaluate --workdir={name} --protocol=knn"
    return [f"next, evaluate the encoder: {command}", report]


def shown(folder: pathlib.Path) -> str:
    """The folder relative to the current one, if it is inside that."""
    here = pathlib.Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def open_loggers(job: Job, experiment: Experiment) -> list[WandbLogger]:
    """The loggers that a config asks for in addition to TensorBoard."""
    project = experiment.spec.config.monitor.wandb
    if not project:
        return []
    return [WandbLogger(job.folder, project, job.config, quiet=job.quiet)]


def written(folder: pathlib.Path) -> list[str]:
    """Names of the files and folders of a run; folders end with a slash."""
    return sorted(
        f"{file.name}/" if file.is_dir() else file.name
        for file in folder.iterdir()
        if file.name != workdir.LOCK_FILE
    )


def _parser() -> _cli.Parser:
    parser = _cli.Parser("main", __doc__, has_fields=True)
    parser.add_config("the experiment to train", required=True)
    parser.add_workdir(
        "folder of the run, created if missing; default runs/<config>[_<variant>]",
        required=False,
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0; needed only if the cluster is not detected",
    )
    parser.add_argument(
        "--num_processes",
        metavar="N",
        type=int,
        help="number of processes; 1: train alone, even if a cluster is detected",
    )
    parser.add_argument(
        "--process_id", metavar="I", type=int, help="index of this process, from 0"
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
