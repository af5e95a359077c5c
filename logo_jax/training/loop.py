"""The training loop: step, log, save, evaluate."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import numpy as np

from logo_jax.methods.base import Metrics, TrainState
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.training.schedule import TrainingSchedule


class DataError(ValueError):
    """Images cannot be read, for training or for an evaluation."""


class Loader(Protocol):
    """Batches by step number."""

    @property
    def waits(self) -> bool:
        """Whether a batch may have to be waited for."""
        ...

    @property
    def images_per_step(self) -> int:
        """Images of a batch, over all devices and seeds."""
        ...

    def batches(self, start: int, stop: int) -> Generator[tuple[Any, Any]]:
        """The examples and the epoch of each step from start to stop - 1."""
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
    """Trains from the state's step to the last step; returns the final state.

    A state is saved before it is evaluated, so that an evaluation that fails costs no
    step. A resumed state whose evaluation is due and not recorded is evaluated first.

    Args:
        state: to start from; donated.
        train_step: `(state, examples, epoch) -> (state, metrics)`.
        loader: of examples.
        schedule: number of steps; logging, checkpoint and evaluation intervals.
        log: of metrics and evaluations. A state at which its collapse detector allows
            no checkpoint is saved only as the run's last.
        checkpoints: where states are saved.
        monitor: evaluates a state by kNN, percent by name such as
            `knn/k20_t0.07/top1`; None: no evaluations.
        preemption: read after each step. On a request the state is saved and returned
            early. None: never.

    Raises:
        FloatingPointError: if a loss is not finite, as soon as it has been computed;
            names the last step with a finite loss.
        CollapseError: if the collapse detector of the log ends the run.
        DataError: if the loader or the monitor cannot read images; the state has been
            saved by then.
        SaveError: if a checkpoint cannot be written; those before it are whole.
    """
    start, preemption = int(np.max(state.step)), preemption or PreemptionHandler()
    saver = _Saver(checkpoints, log, schedule.num_steps, preemption)
    preemption.saved(start)
    log.restart_clock()
    if monitor and schedule.evaluates(start) and not log.is_evaluated(start):
        _evaluate(monitor, start, state, log)
    with contextlib.closing(loader.batches(start, schedule.num_steps)) as batches:
        for step in range(start + 1, schedule.num_steps + 1):
            try:
                examples, epoch = log.next_batch(batches)
            except (ValueError, OSError) as error:
                saver.save_and_wait(step - 1, state)
                if preemption.requested():
                    break  # the signal has ended the processes that read, too
                raise DataError(f"after step {step - 1}: {error}") from error
            state, metrics = train_step(state, examples, epoch)
            preemption.unsaved()
            images, waits = loader.images_per_step, loader.waits
            log.add(step, metrics, images=images, waits=waits)
            if preemption.requested():
                saver.save_and_wait(step, state)
                break
            if monitor and schedule.evaluates(step):
                saver.save_and_wait(step, state)
                _evaluate(monitor, step, state, log)
            elif schedule.saves(step):
                saver.save(step, state)
    checkpoints.wait()
    return state


def _evaluate(monitor: Monitor, step: int, state: TrainState, log: TrainLog) -> None:
    try:
        values = monitor(state)
    except (ValueError, OSError) as error:
        raise DataError(f"evaluating step {step}: {error}") from error
    log.write_evaluation(step, values)


class _Saver:
    """Saves states whose losses are finite, and of which the log allows a checkpoint.

    The state after the last step is saved in any case.
    """

    def __init__(
        self,
        checkpoints: CheckpointManager | NullLogger,
        log: TrainLog,
        num_steps: int,
        preemption: PreemptionHandler,
    ):
        self._checkpoints = checkpoints
        self._log = log
        self._num_steps = num_steps
        self._preemption = preemption

    def save(self, step: int, state: TrainState) -> bool:
        """Starts to write a checkpoint; returns whether the state may be saved."""
        self._log.flush()  # raises if a loss is not finite
        if step < self._num_steps and not self._log.allows_checkpoint:
            return False
        if step not in self._checkpoints.steps():
            self._checkpoints.save(step, state)
        return True

    def save_and_wait(self, step: int, state: TrainState) -> None:
        """Saves a state, and returns once the newest checkpoint is on disk."""
        saved = self.save(step, state)
        self._checkpoints.wait()
        newest = max(self._checkpoints.steps(), default=0)
        self._preemption.saved(step if saved else newest)
