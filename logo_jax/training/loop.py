"""The loop: next batch, step, log, save, monitor."""

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from logo_jax.methods.base import Metrics, TrainState
from logo_jax.parallel.processes import NullLogger, broadcast_from_first
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.metric_writer import MetricWriter, by_seed
from logo_jax.training.logging.progress import Progress
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.training.schedule import TrainingSchedule

T = TypeVar("T")

LEAD = 3


class DataError(ValueError):
    """The data cannot be read any further."""


class Loader(Protocol):
    """Batches by step number."""

    @property
    def waits(self) -> bool:
        """Whether a batch may take time to come."""
        ...

    @property
    def images_per_step(self) -> int:
        """Images of a batch, over all devices and seeds."""
        ...

    def batches(self, start: int, stop: int) -> Generator[tuple[Any, Any]]:
        """The examples of each step from start to stop - 1, and its epoch."""
        ...


class Watch(Protocol):
    """Judges a run by its lines of metrics; may end it by raising."""

    @property
    def allows_checkpoint(self) -> bool:
        """Whether a checkpoint of the newest line's state may be kept."""
        ...

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the line of metrics that was written at a step."""
        ...


Gallery = Callable[[int, Mapping[str, float]], None]
Monitor = Callable[[TrainState], Mapping[str, Any]]


def train(
    state: TrainState,
    train_step: Callable[..., tuple[TrainState, Metrics]],
    loader: Loader,
    plan: TrainingSchedule,
    *,
    monitor: Monitor | None,
    checkpoints: CheckpointManager | NullLogger,
    writer: MetricWriter | NullLogger,
    progress: Progress | NullLogger,
    clock: Callable[[], float],
    stop: PreemptionHandler | None = None,
    watch: Watch | None = None,
    gallery: Gallery | None = None,
) -> TrainState:
    """Trains from the state's step to the plan's last; returns the final state.

    A state is on disk before it is evaluated, so that whatever ends an evaluation costs
    no step; an evaluation that is missing at the step it starts from is made up for.

    Args:
        state: to start from; donated.
        train_step: `(state, examples, epoch) -> (state, metrics)`.
        loader: of examples.
        plan: how long, and how often what.
        monitor: evaluates a state, or None.
        checkpoints: where states are kept.
        writer: where metrics go.
        progress: what a person watches.
        clock: seconds, for the throughput.
        stop: read between steps; where it is requested, the state is saved and
            returned as it is. None: never.
        watch: judges each line, or None. What it raises ends the run; a state that it
            does not trust is kept only as the run's last.
        gallery: gets each line, of an evaluation too, once it is written, and may draw;
            or None.

    Raises:
        FloatingPointError: where the loss stops being finite, naming the last step
            whose loss was; as soon as that loss has been computed.
        DataError: where the loader cannot go on, or the monitor; the state has been
            saved then.
        SaveError: where a checkpoint cannot be written; those before it are whole.
    """
    start, stop = int(np.max(state.step)), stop or PreemptionHandler()
    log = Log(writer, progress, plan, clock, watch, gallery)
    keep = functools.partial(
        _keep, log=log, checkpoints=checkpoints, stop=stop, watch=watch
    )
    stop.saved(start)
    evaluate = functools.partial(_evaluated, monitor, plan.seeds) if monitor else None
    if evaluate and plan.evaluates(start) and not log.is_evaluated(start):
        log.evaluate(start, evaluate(start, state))
    with contextlib.closing(loader.batches(start, plan.num_steps)) as batches:
        for step in range(start + 1, plan.num_steps + 1):
            try:
                examples, epoch = log.timed(batches)
            except (ValueError, OSError) as error:
                keep(step - 1, state)
                _unless_stopped(stop, f"after step {step - 1}", error)
                break
            state, metrics = train_step(state, examples, epoch)
            stop.unsaved()
            log.add(step, loader, metrics)
            if stop.requested():
                keep(step, state)
                break
            last = step == plan.num_steps
            if evaluate and plan.evaluates(step):
                keep(step, state, last=last)
                log.evaluate(step, evaluate(step, state))
            elif plan.saves(step):
                log.flush()  # a state is saved once its losses are known to be finite
                if last or allows_checkpoint(watch):
                    checkpoints.save(step, state)
    checkpoints.wait()
    return state


def _unless_stopped(stop: PreemptionHandler, when: str, error: Exception) -> None:
    """Raises, where the signal that stops the run has not ended what reads as well."""
    if not stop.requested():
        raise DataError(f"{when}: {error}") from error


def _evaluated(
    monitor: Monitor, seeds: Sequence[int], step: int, state: TrainState
) -> Mapping[str, float]:
    """What the monitor finds of a step's state."""
    try:
        return by_seed(monitor(state), seeds)
    except (ValueError, OSError) as error:
        raise DataError(f"evaluating step {step}: {error}") from error


def _keep(
    step: int,
    state: TrainState,
    *,
    last: bool = False,
    log: "Log",
    checkpoints: CheckpointManager | NullLogger,
    stop: PreemptionHandler,
    watch: Watch | None,
) -> None:
    """Returns once a step's state is on disk, and before it all that was measured.

    A state that is not trusted is not kept, unless it is the run's last: what is on
    disk then is the newest that was.
    """
    log.flush()  # a state is saved once its losses are known to be finite
    if step not in checkpoints.steps():
        if last or allows_checkpoint(watch):
            checkpoints.save(step, state)
        else:
            step = max(checkpoints.steps(), default=0)
    checkpoints.wait()
    stop.saved(step)


def allows_checkpoint(watch: Watch | None) -> bool:
    """Whether nobody objects to a checkpoint."""
    return watch is None or watch.allows_checkpoint


class Log:
    """Collects metrics on the device and writes their means, a line every so often.

    Args:
        writer: where lines go.
        progress: what a person watches.
        plan: when lines are due.
        clock: seconds; time spent in evaluations and on pictures does not count.
        watch: gets each line too, or None.
        gallery: gets each line and each evaluation, or None.
    """

    def __init__(
        self,
        writer: MetricWriter | NullLogger,
        progress: Progress | NullLogger,
        plan: TrainingSchedule,
        clock: Callable[[], float],
        watch: Watch | None = None,
        gallery: Gallery | None = None,
    ):
        self._watch = watch
        self._gallery = gallery or (lambda step, values: None)
        self._writer = writer
        self._progress = progress
        self._plan = plan
        self._clock = clock
        self._pending: list[tuple[int, int, Metrics]] = []
        self._unchecked: collections.deque[tuple[int, Any]] = collections.deque()
        self._since = clock()
        self._waited = 0.0
        self._shown: dict[str, str] = {}

    def timed(self, batches: Iterator[T]) -> T:
        """The next batch; the time it takes is counted as waiting for data."""
        before = self._clock()
        batch = next(batches)
        self._waited += self._clock() - before
        return batch

    def add(self, step: int, loader: Loader, metrics: Metrics) -> None:
        """Takes a step's metrics, and writes a line where one is due.

        Steps are computed while later ones are prepared, by at most LEAD steps, so that
        a signal waits for no more than these.
        """
        self._pending.append((step, loader.images_per_step, metrics))
        if loader.waits:
            # so that a wait for data is time in which the devices stand idle
            jax.block_until_ready(metrics)
        self._unchecked.append((step, metrics["loss"]))
        jax.block_until_ready(self._pending[-LEAD : 1 - LEAD])
        self._require_finite(wait=False)
        if self._plan.logs(step):
            self.flush()

    def is_evaluated(self, step: int) -> bool:
        """Whether an evaluation of this step is on record: a line without a loss."""
        here = any("loss" not in row for row in self._writer.rows(step))
        return bool(broadcast_from_first(np.bool_(here)))

    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        """Writes an evaluation's values, after the steps before it."""
        self.flush()
        self._writer.write(step, values)
        name, value = next(iter(values.items()))
        self._shown = {"kNN": f"{value:.2f} %"}
        spread = f" ± {values[f'{name}/std']:.2f}" if f"{name}/std" in values else ""
        self._progress.say(f"step {step}: {name} {value:.2f}{spread} %")
        self._gallery(step, values)
        self._restart()

    def _restart(self):
        self._since, self._waited = self._clock(), 0.0

    def flush(self) -> None:
        """Writes the mean of all metrics since the last line, if there are any."""
        if not self._pending:
            return
        self._require_finite(wait=True)
        steps, images, metrics = zip(*self._pending, strict=True)
        self._pending = []
        values = jax.device_get(metrics)
        means = jax.tree.map(lambda *x: np.mean(x, axis=0), *values)
        means = by_seed(means, self._plan.seeds)
        took = self._clock() - self._since
        means["images_per_second"] = sum(images) / took
        means["data_wait_percent"] = 100 * self._waited / took
        self._writer.write(steps[-1], means)
        epoch, epochs = (
            done / self._plan.steps_per_epoch
            for done in (steps[-1], self._plan.num_steps)
        )
        self._progress.update(
            steps[-1],
            epoch=f"{epoch:.2f}/{epochs:.4g}",
            loss=means["loss"],
            **self._shown,
            **{"images/s": means["images_per_second"]},
            waiting=f"{means['data_wait_percent']:.1f} %",
        )
        self._gallery(steps[-1], means)
        self._restart()
        if self._watch:
            self._watch(steps[-1], means)

    def _require_finite(self, wait):
        """Raises at the first loss that is not finite, of all or of those at hand."""
        while self._unchecked and (wait or self._unchecked[0][1].is_ready()):
            step, loss = self._unchecked.popleft()
            if not np.isfinite(loss).all():
                raise FloatingPointError(_advice(step, loss))


def _advice(step: int, loss: Any) -> str:
    said = f"the loss of step {step} is {loss}"
    if step == 1:  # no learning rate has been applied
        return f"{said}, before anything was learned; look at the images, augment.std"
    return (
        f"{said}, that of step {step - 1} was finite; lower optimizer.learning_rate "
        "and train again in a new workdir"
    )
