"""Trains the run of a folder, from a config or from its newest checkpoint."""

import contextlib
import dataclasses
import functools
import json
import shlex
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from logo_jax.data.fingerprint import Fingerprint, fingerprint
from logo_jax.data.load import (
    DataLocation,
    ExperimentData,
    load_images,
    prepare_missing,
)
from logo_jax.evaluation.knn_monitor import KnnMonitor
from logo_jax.experiment import Experiment, make_experiment
from logo_jax.experiment.choosing import chosen
from logo_jax.experiment.config import Config, TrainConfig, parse
from logo_jax.experiment.measured import completed, fields_of
from logo_jax.experiment.memory import fitted
from logo_jax.experiment.starting import first_state, recorded
from logo_jax.methods.base import ENCODER, TrainState
from logo_jax.parallel import processes
from logo_jax.parallel.mesh import make_mesh, replicate
from logo_jax.training import workdir
from logo_jax.training.checkpoints.keep import Keep
from logo_jax.training.checkpoints.manager import CheckpointManager, saved_steps
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
    best_row,
    read_rows,
)
from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.logging.wandb import WandbLogger
from logo_jax.training.loop import DataError, Monitor, train
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.visualization.train_images import ImageLogger

COMPILING = "compiling the training step"
COMPILED = "the training step is already compiled"


class InputError(ValueError):
    """Bad input, corrupt data or a full disk; the message is one line."""


@contextlib.contextmanager
def as_input_errors(
    kinds: tuple[type[Exception], ...] = (ValueError, TypeError, OSError),
) -> Iterator[None]:
    """Raises exceptions of these kinds as `InputError`, with the same message.

    Args:
        kinds: by default those that reading a config or data raises.
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise InputError(" ".join(str(error).split())) from error


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run whose folder this process has locked, ready to train.

    Attributes:
        config: the experiment's config as nested mappings of plain values.
        folder: the run's folder, an absolute path.
        quiet: whether only errors and collapses are printed.
        experiment: the config with its data on the devices.
        checkpoints: checkpoints of the run; a `NullLogger` in processes that do not
            write.
    """

    config: Mapping[str, Any]
    folder: Path
    quiet: bool
    experiment: Experiment
    checkpoints: CheckpointManager | NullLogger

    def train(self, stop: PreemptionHandler) -> None:
        """Trains to the last step, or until a stop is requested; saves the state.

        The run begins at its newest checkpoint, and again after each rollback.

        Args:
            stop: preemption handler, which is checked between steps.

        Raises:
            InputError: if images cannot be read, or the disk is full.
            CollapseError: if the run has collapsed and is not to be started again.
            FloatingPointError: if a loss is not finite.
        """
        try:
            with as_input_errors((DataError, OSError)):
                while not self._attempt(stop):
                    pass
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{error}; check the images and augment.std, or lower "
                "optimizer.learning_rate and train again in a new workdir"
            ) from error

    def _attempt(self, stop: PreemptionHandler) -> bool:
        """Trains from the newest checkpoint; returns False if the run was rolled back.

        Raises:
            CollapseError: if the run has collapsed and is not to be started again.
        """
        with as_input_errors():
            times = int(
                processes.broadcast_from_first(np.int32(len(rollbacks(self.folder))))
            )
            experiment = self.experiment.rolled_back(times)
            like = experiment.spec.shapes
            restored = self.checkpoints.restore_latest(like, start_average=True)
            found = restored or (0, first_state(experiment.spec))
        start, state = processes.broadcast_from_first(found)
        state = replicate(state, experiment.mesh)
        try:
            self._train_from(int(start), state, experiment, stop)
        except CollapseError as collapse:
            if experiment.spec.config.monitor.health != "rollback":
                raise
            number = next_rollback(times, collapse)
            if processes.is_first():
                record_rollback(self.folder, collapse.step)
                line = f"{collapse}; rollback {number} of {MOST_ROLLBACKS}"
                print(line, file=sys.stderr)
            return False
        return True

    def _train_from(
        self,
        start: int,
        state: TrainState,
        experiment: Experiment,
        stop: PreemptionHandler,
    ) -> None:
        """Trains from a state; prints what was written and what to do next."""
        schedule = experiment.spec.schedule
        policy = experiment.spec.config.monitor.health
        again = (self.folder / METRICS_FILE).exists()
        writer = progress = NullLogger()
        image_logger = None
        if processes.is_first():
            with as_input_errors():
                loggers = self._loggers()
                writer = MetricWriter(self.folder, resume_step=start, loggers=loggers)
            image_logger = ImageLogger(writer, experiment, has_crops=start > 0)
            progress = Progress(
                schedule.num_steps,
                initial=start,
                quiet=self.quiet,
                advice=_advice(experiment),
            )
        detector = CollapseDetector(policy, schedule.seeds, progress.say, progress.warn)
        log = TrainLog(
            writer,
            progress,
            schedule,
            collapse_detector=detector,
            image_logger=image_logger,
        )
        with writer, progress:
            for line in _first_lines(experiment, self.folder, start, again):
                progress.say(line)
            monitor, first = experiment.monitor, schedule.first_evaluation
            if monitor and schedule.trivial_baselines and not log.is_evaluated(first):
                monitor = _with_baselines(monitor, experiment, state, progress.say)
            if start < schedule.num_steps:
                is_compiled = experiment.train_step.is_compiled
                progress.say(COMPILED if is_compiled else COMPILING)
            trained = train(
                state,
                experiment.train_step,
                experiment.loader,
                schedule,
                log=log,
                checkpoints=self.checkpoints,
                monitor=monitor,
                preemption=stop,
            )
            complete = int(np.max(trained.step)) == schedule.num_steps
            if processes.is_first() and complete:
                log.upload()  # the lines below are about all evaluations
                best = _best_lines(self.folder, experiment.spec.config.train)
                last = _last_lines(self.folder, can_evaluate=monitor is not None)
                for line in best + last:
                    progress.say(line)

    def _loggers(self) -> list[WandbLogger]:
        """The loggers that the config asks for in addition to TensorBoard."""
        project = self.experiment.spec.config.monitor.wandb
        if not project:
            return []
        return [WandbLogger(self.folder, project, self.config, quiet=self.quiet)]


@contextlib.contextmanager
def open_run(
    config: Mapping[str, Any],
    folder: Path,
    *,
    quiet: bool,
    images: ExperimentData | None = None,
) -> Iterator[OpenRun]:
    """Loads the data of a config and locks the folder of its run.

    Everything that can be wrong with the config, the data or the folder is reported
    here, before anything is written to the folder.

    Args:
        config: the experiment's config as nested mappings of plain values.
        folder: the run's folder; created if it does not exist.
        quiet: whether to print nothing.
        images: the images, if they are in memory; otherwise, those of the config.

    Raises:
        InputError: if the config, the data or the folder is wrong.
    """
    folder = folder.absolute()
    with contextlib.ExitStack() as held:
        with as_input_errors():
            typed, mesh = parse(config), make_mesh()
            lock = typed.train.lock
            say = functools.partial(_say, quiet=quiet or not processes.is_first())
            loaded = _Images(typed.data.location, images, quiet)
            config, choice = chosen(config, folder, mesh, loaded)
            changed, note = [], ""
            if processes.is_first():
                config = recorded(config, folder)
                changed = workdir.check_config(folder, config)
                if lock:
                    workdir.require_free(folder)
            data = fingerprint(loaded())
            _require_same_images(data)
            if processes.is_first():
                note = workdir.require_same_data(folder, data)
            experiment = fitted(make_experiment(config, mesh, loaded()))
            # only now, so that an error is the only line
            say(choice)
            say(workdir.as_resumed(changed) if changed else "")
            say(f"note: {note}" if note else "")
            config = completed(config, fields_of(experiment.spec.config))
            checkpoints = NullLogger()
            if processes.is_first():
                held.enter_context(workdir.lock_workdir(folder, lock=lock))
                workdir.claim_workdir(folder, config)
                workdir.record_data(folder, data)
                workdir.record_machine(folder, experiment.mesh)
                checkpoints = held.enter_context(
                    CheckpointManager(
                        folder / "checkpoints",
                        keep=keep_of(experiment.spec.config.train, folder),
                    )
                )
        yield OpenRun(config, folder, quiet, experiment, checkpoints)


def _require_same_images(data: Fingerprint) -> None:
    """Raises an error on all processes if one of them has other images.

    A step has images of all processes, by their numbers in the data set.
    """
    text = json.dumps(data, sort_keys=True)
    if others := processes.differing(zlib.crc32(text.encode())):
        raise ValueError(
            f"the images of process {others[0]} are not those of process 0: here "
            f"(process {jax.process_index()}) they are {text}; give all processes "
            "copies of the same files"
        )


def _with_baselines(
    monitor: KnnMonitor,
    experiment: Experiment,
    state: TrainState,
    say: Callable[[str], None],
) -> Monitor:
    """Returns a monitor that prints the trivial baselines before its first evaluation.

    They take seconds, so they are not computed before the first step: a run would show
    its first loss later, and they are of use when there is an accuracy to compare.

    Args:
        monitor: the monitor of the experiment.
        experiment: the experiment.
        state: the state with which training begins or resumes. Before the first step,
            its encoder is copied. Later, starting weights may no longer exist, so that
            the baseline is the untrained network.
        say: prints a line.
    """
    resumes = int(np.max(state.step)) > 0
    if resumes:
        state = experiment.spec.first_state()
    has_weights = not resumes and _start(experiment.spec.config)
    network = "starting weights" if has_weights else "untrained network"
    variables = state.variables(ENCODER)
    encoder_only = state.replace(
        params={ENCODER: variables["params"]},
        batch_stats={ENCODER: variables["batch_stats"]},
        opt_states={},
        memory={},
    )
    # in the host's memory, because the first step may overwrite the state
    untrained = [jax.tree.map(np.array, encoder_only)]

    def evaluate(trained: TrainState) -> dict[str, Any]:
        if untrained:
            state = replicate(untrained.pop(), experiment.mesh)
            baselines = monitor.trivial_baselines(state, network)
            for name, value in baselines.items():
                say(f"baseline without training: {name}, kNN {value:.1f} %")
        return monitor(trained)

    return evaluate


def keep_of(config: TrainConfig, folder: Path) -> Keep:
    """Returns which checkpoints of a run are kept.

    The best one is looked up in the run's metrics whenever a checkpoint is written. So
    it is known after a kill and a resume, and when the metric was changed.
    """

    def best(steps: Sequence[int]) -> int | None:
        row = best_row(read_rows(folder / METRICS_FILE), config.keep_best, steps)
        return None if row is None else row["step"]

    rule = {"best": best} if config.keep_best else {}
    return Keep(config.keep_newest, config.keep_every_steps, **rule)


def _best_lines(folder: Path, config: TrainConfig) -> list[str]:
    """A line about the best checkpoint of a complete run, if one is kept."""
    metric, steps = config.keep_best, saved_steps(folder / "checkpoints")
    best = best_row(read_rows(folder / METRICS_FILE), metric, steps)
    if not best:
        return []
    command = f"evaluate --workdir={shlex.quote(_shown(folder))} --step={best['step']}"
    command += " --encoder=ema" if metric.startswith("ema/") else ""
    return [
        f"the best {metric} is {best[metric]:.2f} %, of step {best['step']}, which is "
        f"kept: {_python()} -m logo_jax.{command}"
    ]


class _Images:
    """Loads the images of a run when they are first needed, unless they are given."""

    def __init__(
        self, location: DataLocation, given: ExperimentData | None, quiet: bool
    ):
        self._location, self._given, self._quiet = location, given, quiet

    def __call__(self) -> ExperimentData:
        if self._given is None:
            # several processes may share one disk, or have one each
            if processes.is_alone():
                prepare_missing(self._location, quiet=self._quiet)
            self._given = load_images(self._location)
        return self._given


def _say(text: str, *, quiet: bool) -> None:
    if text and not quiet:
        print(text, file=sys.stderr)


def default_workdir(config: str) -> Path:
    """The folder of a run of a config, unless another one is given.

    >>> default_workdir("configs/cifar10_simsiam.py:baseline").as_posix()
    'runs/cifar10_simsiam_baseline'
    """
    name, colon, variant = config.partition(":")
    stem = Path(name).stem
    return Path("runs") / (f"{stem}_{variant}" if colon else stem)


def _first_lines(
    experiment: Experiment, folder: Path, start: int, again: bool
) -> list[str]:
    """The first lines of a run that begins at a step; `again`: it has begun before."""
    lines = [_headline(experiment, folder), experiment.loading]
    if start:
        num_steps = experiment.spec.schedule.num_steps
        lines.append(f"resumed from step {start} of {num_steps}")
    elif again:
        lines.append(f"no checkpoint in {folder}: starting again from step 0")
    return lines


def _headline(experiment: Experiment, folder: Path) -> str:
    """The first line of a run: its images, length, devices and folder."""
    schedule, config = experiment.spec.schedule, experiment.spec.config
    data, parts = config.data, config.train.accumulate
    epochs = schedule.num_steps / schedule.steps_per_epoch
    in_parts = f" in {parts} parts (batch_norm={config.norm})" if parts > 1 else ""
    return (
        f"training on {data.location.title} for {schedule.num_steps:,} steps of "
        f"{data.batch_size} images{in_parts} (epochs: {epochs:.4g}), on "
        f"{workdir.describe_machine(experiment.mesh)['devices']}, in {_shown(folder)}"
        f"{_start(config)}"
    )


def _advice(experiment: Experiment) -> str:
    """What to do if a run takes long."""
    advice = "Ctrl-C saves the run, and the same command resumes it"
    is_cpu = experiment.mesh.devices.flat[0].platform == "cpu"
    if not (is_cpu and experiment.spec.config.encoder.backbone.startswith("resnet")):
        return advice
    return (
        f"{advice}; for a short trial on this CPU add another --workdir and "
        "--config.encoder.backbone=resnet10 --config.encoder.width=16 "
        "--config.train.num_steps=200"
    )


def _start(config: Config) -> str:
    """The part of the first line that names the starting weights, if any."""
    encoder, train = config.encoder, config.train
    for source, record in (
        (encoder.weights, encoder.weights_record),
        (train.start_from, train.start_record),
    ):
        if source:
            return f", starting from {source} ({record})"
    return ""


def _last_lines(folder: Path, *, can_evaluate: bool) -> list[str]:
    """Lines about a complete run: what was written, and commands to run next."""
    name = _shown(folder)
    lines = [f"done; wrote {', '.join(_written(folder))} to {name}"]
    if can_evaluate:  # there are labels
        command = f"evaluate --workdir={shlex.quote(name)} --protocol=knn"
        lines += [f"next, evaluate the encoder: {_python()} -m logo_jax.{command}"]
    command = f"report {shlex.quote(name)}"
    return [*lines, f"next, draw a report: {_python()} -m logo_jax.{command}"]


def _python() -> str:
    """The command that starts this Python, also if its environment is not activated."""
    own, found = Path(sys.executable).absolute(), shutil.which("python")
    is_own = found is not None and Path(found).absolute().parent == own.parent
    return "python" if is_own else shlex.quote(_shown(own))


def _shown(folder: Path) -> str:
    """The folder relative to the current one, if it is inside that."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _written(folder: Path) -> list[str]:
    """Names of the files and folders of a run; folders end with a slash."""
    return sorted(
        f"{file.name}/" if file.is_dir() else file.name
        for file in folder.iterdir()
        if file.name != workdir.LOCK_FILE
    )
