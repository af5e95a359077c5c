"""Training loop: trains, logs, saves checkpoints and evaluates."""

import contextlib
import functools
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import numpy as np

from logo_jax.methods.base import Metrics, TrainState
from logo_jax.parallel import processes
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.training.schedule import TrainingSchedule


class DataError(ValueError):
    """Images cannot be read for training or for an evaluation."""


class Loader(Protocol):
    """Interface of loaders of training batches.

    A loader returns the batch of any step number, so that a resumed run gets the same
    batches as an uninterrupted one.
    """

    @property
    def waits(self) -> bool:
        """Whether the loop may have to wait for a batch."""
        ...

    @property
    def images_per_step(self) -> int:
        """Number of images per step, over all devices and seeds."""
        ...

    def batches(self, start: int, stop: int) -> Generator[tuple[Any, Any]]:
        """Yields the examples and the epoch of each step from start to stop - 1."""
        ...


Monitor = Callable[[TrainState], Mapping[str, Any]]


def train(
    state: TrainState,
    train_step: Callable[..., tuple[TrainState, Metrics]],
    loader: Loader,
    schedule: TrainingSchedule,
    *,
    log: TrainLog,
    checkpoints: CheckpointManager | NullLogger,
    monitor: Monitor | None = None,
    preemption: PreemptionHandler | None = None,
) -> TrainState:
    """Trains from the state's step to the last step and returns the final state.

    A state is saved before it is evaluated, so no training step is lost if the
    evaluation fails. If the evaluation of a resumed state is due but not recorded, the
    state is evaluated first.

    Args:
        state: initial state; donated.
        train_step: function `(state, examples, epoch) -> (state, metrics)`.
        loader: loader of the examples.
        schedule: number of steps; logging, checkpoint and evaluation intervals.
        log: log of metrics and evaluations. A state for which its collapse detector
            does not allow a checkpoint is saved only if it is the last of the run.
        checkpoints: manager that saves the states.
        monitor: function that evaluates a state by kNN and returns percentages by name,
            such as `knn/k20_t0.07/top1`; None for no evaluations.
        preemption: handler that is checked after each step. If it requests a stop, in
            any of several processes, the state is saved and returned early, of the same
            step in all processes. None never requests a stop.

    Raises:
        FloatingPointError: if a loss is not finite, as soon as it is computed; the
            message names the last step with a finite loss.
        CollapseError: if the collapse detector of the log ends the run.
        DataError: if the loader or the monitor cannot read images; the state has
            already been saved.
        SaveError: if a checkpoint cannot be written; earlier checkpoints remain valid.
    """
    start, preemption = int(np.max(state.step)), preemption or PreemptionHandler()
    saver = _Saver(checkpoints, log, schedule.num_steps, preemption, start)
    agreement = processes.Agreement()
    preemption.saved(start)
    on_disk = True  # the newest state
    log.restart_clock()
    if monitor and schedule.evaluates(start) and not log.is_evaluated(start):
        _evaluate(monitor, start, state, log)
    with contextlib.closing(loader.batches(start, schedule.num_steps)) as batches:
        for step in range(start + 1, schedule.num_steps + 1):
            try:
                examples, epoch = log.next_batch(batches)
            except (ValueError, OSError) as error:
                saver.save_and_wait(step - 1, state)
                if processes.is_alone() and preemption.requested():
                    break  # the signal also stopped the reader processes
                raise DataError(f"after step {step - 1}: {error}") from error
            state, metrics = train_step(state, examples, epoch)
            images, waits = loader.images_per_step, loader.waits
            log.add(step, metrics, images=images, waits=waits)
            evaluates = monitor is not None and schedule.evaluates(step)
            # Other processes may still compile their first step, or draw a figure of an
            # evaluation. Until they come nothing is unsaved, so that a signal ends all.
            now = evaluates or on_disk
            stops = preemption.requested(functools.partial(agreement, now=now))
            preemption.unsaved()
            on_disk = False
            if stops:
                saver.save_and_wait(step, state)
                break
            if monitor and evaluates:
                saver.save_and_wait(step, state)
                on_disk = True
                _evaluate(monitor, step, state, log)
            elif schedule.saves(step):
                saver.save(step, state)
    checkpoints.wait()
    preemption.saved(saver.newest)
    return state


def _evaluate(monitor: Monitor, step: int, state: TrainState, log: TrainLog) -> None:
    try:
        values = monitor(state)
    except (ValueError, OSError) as error:
        raise DataError(f"evaluating step {step}: {error}") from error
    log.write_evaluation(step, values)


class _Saver:
    """Saves states with finite losses for which the log allows a checkpoint.

    The state after the last step is always saved.

    Attributes:
        newest: step of the newest state that was saved; only the first of several
            processes writes it.
    """

    def __init__(
        self,
        checkpoints: CheckpointManager | NullLogger,
        log: TrainLog,
        num_steps: int,
        preemption: PreemptionHandler,
        start: int,
    ):
        self.newest = start
        self._checkpoints = checkpoints
        self._log = log
        self._num_steps = num_steps
        self._preemption = preemption

    def save(self, step: int, state: TrainState) -> None:
        """Starts writing a checkpoint, unless the state may not be saved."""
        self._log.flush()  # raises if a loss is not finite
        if step < self._num_steps and not self._log.allows_checkpoint:
            return
        if step not in self._checkpoints.steps():
            self._log.upload()  # a checkpoint has all rows up to its step
            self._checkpoints.save(step, state)
        self.newest = step

    def save_and_wait(self, step: int, state: TrainState) -> None:
        """Saves a state and waits until the newest checkpoint is on disk."""
        self.save(step, state)
        self._checkpoints.wait()
        self._preemption.saved(self.newest)
