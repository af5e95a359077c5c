"""Collects metrics of training steps and writes their means at regular intervals."""

import collections
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from logo_jax.methods.base import Metrics
from logo_jax.parallel.processes import broadcast_from_first
from logo_jax.training.collapse import CollapseDetector
from logo_jax.training.logging.metric_writer import (
    MetricWriter,
    by_seed,
    is_evaluation,
)
from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.progress import Progress
from logo_jax.training.schedule import TrainingSchedule

T = TypeVar("T")
ImageLogger = Callable[[int, Mapping[str, float]], None]

MAX_STEPS_AHEAD = 3


class TrainLog:
    """Log of the metrics of a run during training.

    Metrics stay on the device until the next row is written. Each row is passed to the
    writer, the progress line, the image logger and the collapse detector, in this
    order.

    Args:
        writer: writes the rows.
        progress: shows the rows on the terminal.
        schedule: training schedule, with the logging interval and the seeds.
        clock: function that returns the time in seconds, to measure the throughput. The
            time of evaluations and figures is excluded.
        collapse_detector: called with each row of training metrics; may raise.
        image_logger: called with each row, including those of evaluations; may log
            figures.
    """

    def __init__(
        self,
        writer: MetricWriter | NullLogger,
        progress: Progress | NullLogger,
        schedule: TrainingSchedule,
        *,
        clock: Callable[[], float] = time.perf_counter,
        collapse_detector: CollapseDetector | None = None,
        image_logger: ImageLogger | None = None,
    ):
        self._writer = writer
        self._progress = progress
        self._schedule = schedule
        self._clock = clock
        self._detector = collapse_detector
        self._log_images = image_logger or (lambda step, values: None)
        self._pending: list[tuple[int, int, Metrics]] = []
        self._unchecked: collections.deque[tuple[int, Any]] = collections.deque()
        self._accuracy: dict[str, str] = {}
        self.restart_clock()

    @property
    def allows_checkpoint(self) -> bool:
        """Whether the collapse detector allows saving the state of the last row."""
        return self._detector is None or self._detector.allows_checkpoint

    def restart_clock(self) -> None:
        """Starts measuring the throughput of the next row."""
        self._since, self._waited = self._clock(), 0.0

    def next_batch(self, batches: Iterator[T]) -> T:
        """Returns the next batch; the time that it takes counts as waiting for data."""
        before = self._clock()
        batch = next(batches)
        self._waited += self._clock() - before
        return batch

    def add(self, step: int, metrics: Metrics, *, images: int, waits: bool) -> None:
        """Adds the metrics of a step and writes a row at the logging interval.

        Steps are dispatched asynchronously, but at most MAX_STEPS_AHEAD at a time, so
        that a signal has to wait for at most this number of steps.

        Args:
            step: number of updates so far.
            metrics: metrics of the step, on the device.
            images: number of images of the step, over all devices and seeds.
            waits: whether the loader may wait for data. In this case the call waits for
                the step, so that the time spent in `next_batch` is the time for which
                devices are idle.

        Raises:
            FloatingPointError: if the loss of this or an earlier step is not finite.
        """
        self._pending.append((step, images, metrics))
        if waits:
            jax.block_until_ready(metrics)
        self._unchecked.append((step, metrics["loss"]))
        jax.block_until_ready(self._pending[-MAX_STEPS_AHEAD : 1 - MAX_STEPS_AHEAD])
        self._require_finite(wait=False)
        if self._schedule.logs(step):
            self.flush()

    def is_evaluated(self, step: int) -> bool:
        """Whether metrics.jsonl has an evaluation of this step.

        The first process reads the file and broadcasts the result to all processes.
        """
        found = any(map(is_evaluation, self._writer.rows(step)))
        return bool(broadcast_from_first(np.bool_(found)))

    def write_evaluation(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the row of an evaluation, after the rows of earlier steps.

        Args:
            step: step of the evaluated state.
            values: percentages by name; arrays [n] for n > 1 seeds.
        """
        self.flush()
        row = by_seed(values, self._schedule.seeds)
        self._writer.write(step, row)
        name, value = next(iter(row.items()))
        self._accuracy = {"kNN": f"{value:.2f} %"}
        spread = f" ± {row[f'{name}/std']:.2f}" if f"{name}/std" in row else ""
        shown = f"{value:.2f}{spread} %"
        self._progress.say(f"step {step}: {_evaluation_text(name, shown)}")
        self._log_images(step, row)
        self.restart_clock()

    def flush(self) -> None:
        """Writes the mean of the metrics since the last row, if any.

        Raises:
            FloatingPointError: if a loss is not finite.
            CollapseError: if the collapse detector ends the run.
        """
        if not self._pending:
            return
        self._require_finite(wait=True)
        steps, images, metrics = zip(*self._pending, strict=True)
        self._pending = []
        means = jax.tree.map(lambda *x: np.mean(x, axis=0), *jax.device_get(metrics))
        row = by_seed(means, self._schedule.seeds)
        seconds = self._clock() - self._since
        row["images_per_second"] = sum(images) / seconds
        row["data_wait_percent"] = 100 * self._waited / seconds
        self._writer.write(steps[-1], row)
        self._show(steps[-1], row)
        self._log_images(steps[-1], row)
        self.restart_clock()
        if self._detector:
            self._detector(steps[-1], row)

    def upload(self) -> None:
        """Uploads the rows to the folder of the run, if that is in a bucket.

        Raises:
            OSError: if they cannot be written there.
        """
        self._writer.upload()

    def _show(self, step: int, row: Mapping[str, float]) -> None:
        per_epoch = self._schedule.steps_per_epoch
        epoch, epochs = step / per_epoch, self._schedule.num_steps / per_epoch
        self._progress.update(
            step,
            loss=row["loss"],
            **self._accuracy,
            epoch=f"{epoch:.2f}/{epochs:.4g}",
            **{"images/s": row["images_per_second"]},
            **{"data wait": f"{row['data_wait_percent']:.1f} %"},
        )

    def _require_finite(self, wait: bool) -> None:
        """Raises an error if a computed loss (`wait`: any loss) is not finite."""
        done = 0
        while self._unchecked and (wait or self._unchecked[0][1].is_ready()):
            done, loss = self._unchecked.popleft()
            if not np.isfinite(loss).all():
                raise FloatingPointError(_fact(done, loss))
        if done:
            self._progress.done(done)


_METRICS = {"top1": "top-1 accuracy", "map": "mean average precision"}


def _evaluation_text(name: str, value: str) -> str:
    """A metric in words.

    >>> _evaluation_text("knn/k20_t0.07/top1", "78.20 %")
    'kNN 78.20 %, the top-1 accuracy of the 20 nearest neighbors'
    """
    match = re.fullmatch(r"knn/k(\d+)_t[^/]+/(\w+)", name)
    if not match or match[2] not in _METRICS:
        return f"{name} {value}"
    return f"kNN {value}, the {_METRICS[match[2]]} of the {match[1]} nearest neighbors"


def _fact(step: int, loss: Any) -> str:
    # in the first step, no learning rate has been applied
    before = f"while the loss of step {step - 1} was finite"
    return f"the loss of step {step} is {loss}, " + (
        "before the first update" if step == 1 else before
    )
