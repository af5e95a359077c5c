"""The loop: next batch, step, log, save, monitor."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from logo_jax.checkpoints import Checkpoints
from logo_jax.metrics import MetricWriter, Progress, by_seed
from logo_jax.state import Metrics, TrainState


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long, and how often what.

    Attributes:
        num_steps: updates in all.
        steps_per_epoch: for the progress line.
        log_every_steps: between lines of metrics, each the mean since the last.
        checkpoint_every_steps: between checkpoints; there is one at the end too.
        knn_every_steps: between kNN evaluations; 0: only at the end.
        floors: whether to print what takes no learning to reach, first.
        seeds: trained at once.
    """

    num_steps: int
    steps_per_epoch: int
    log_every_steps: int
    checkpoint_every_steps: int
    knn_every_steps: int
    floors: bool
    seeds: tuple[int, ...] = (0,)


class Loader(Protocol):
    """Batches by step number."""

    @property
    def images_per_step(self) -> int:
        """Images of a batch, over all devices and seeds."""
        ...

    def batch(self, step: int) -> tuple[Any, Any]:
        """The step's examples, and its epoch."""
        ...


Monitor = Callable[[TrainState], Mapping[str, Any]]


def train(
    state: TrainState,
    train_step: Callable[..., tuple[TrainState, Metrics]],
    loader: Loader,
    plan: Plan,
    *,
    monitor: Monitor | None,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    progress: Progress,
    clock: Callable[[], float],
) -> TrainState:
    """Trains from the state's step to the plan's last; returns the final state.

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

    Raises:
        FloatingPointError: where the loss stops being finite, naming the last step
            whose loss was.
    """
    start = int(np.max(state.step))
    log = Log(writer, progress, plan, clock)
    for step in range(start + 1, plan.num_steps + 1):
        examples, epoch = loader.batch(step - 1)
        state, metrics = train_step(state, examples, epoch)
        log.add(step, loader.images_per_step, metrics)
        last = step == plan.num_steps
        if monitor and (last or is_due(step, plan.knn_every_steps)):
            log.evaluate(step, by_seed(monitor(state), plan.seeds))
        if last or is_due(step, plan.checkpoint_every_steps):
            log.flush()  # a state is saved only once its losses are known to be finite
            checkpoints.save(step, state)
    return state


def is_due(step: int, every: int) -> bool:
    """Whether something done every so many steps (0: never) is due after this one."""
    return every > 0 and step % every == 0


class Log:
    """Collects metrics on the device and writes their means, a line every so often.

    Args:
        writer: where lines go.
        progress: what a person watches.
        plan: when lines are due.
        clock: seconds; time spent in evaluations does not count.
    """

    def __init__(
        self,
        writer: MetricWriter,
        progress: Progress,
        plan: Plan,
        clock: Callable[[], float],
    ):
        self._writer = writer
        self._progress = progress
        self._plan = plan
        self._clock = clock
        self._pending: list[tuple[int, int, Metrics]] = []
        self._since = clock()
        self._shown: dict[str, float] = {}

    def add(self, step: int, num_images: int, metrics: Metrics) -> None:
        """Takes a step's metrics, and writes a line where one is due."""
        self._pending.append((step, num_images, metrics))
        if is_due(step, self._plan.log_every_steps) or step == self._plan.num_steps:
            self.flush()

    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        """Writes an evaluation's values, after the steps before it."""
        self.flush()
        self._writer.write(step, values)
        name, value = next(iter(values.items()))
        self._shown = {"kNN": value}
        spread = f" ± {values[f'{name}/std']:.2f}" if f"{name}/std" in values else ""
        self._progress.say(f"step {step}: {name} {value:.2f}{spread} %")
        self._since = self._clock()

    def flush(self) -> None:
        """Writes the mean of all metrics since the last line, if there are any."""
        if not self._pending:
            return
        steps, images, metrics = zip(*self._pending, strict=True)
        self._pending = []
        values = jax.device_get(metrics)
        self._require_finite(steps, values)
        means = jax.tree.map(lambda *x: np.mean(x, axis=0), *values)
        means = by_seed(means, self._plan.seeds)
        now = self._clock()
        means["images_per_second"] = sum(images) / (now - self._since)
        self._since = now
        self._writer.write(steps[-1], means)
        epoch = steps[-1] / self._plan.steps_per_epoch
        self._progress.update(
            steps[-1],
            epoch=epoch,
            loss=means["loss"],
            **self._shown,
            **{"images/s": means["images_per_second"]},
        )

    def _require_finite(self, steps, values):
        for step, metrics in zip(steps, values, strict=True):
            if not np.isfinite(metrics["loss"]).all():
                raise FloatingPointError(
                    f"the loss of step {step} is {metrics['loss']}, that of step "
                    f"{step - 1} was finite; lower optimizer.learning_rate and train "
                    "again in a new workdir"
                )
