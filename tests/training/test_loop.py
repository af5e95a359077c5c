"""The loop on a state that only counts: interruptions, missing and repeated rows."""

import itertools
import json
import os
import signal
import types

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from logo_jax.runs.training import keep_of
from logo_jax.training.checkpoints.keep import Keep
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import DataError, train
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.training.schedule import TrainingSchedule

SCHEDULE = TrainingSchedule(
    num_steps=6,
    steps_per_epoch=2,
    log_every_steps=1,
    checkpoint_every_steps=4,
    knn_every_steps=2,
    trivial_baselines=False,
)


class Count(struct.PyTreeNode):
    step: jax.Array


class Loader:
    waits = False
    images_per_step = 1

    def batches(self, start, stop):
        for step in range(start, stop):
            yield step, 0


@jax.jit
def train_step(state, examples, epoch):
    del examples, epoch
    return Count(state.step + 1), {"loss": state.step.astype(jnp.float32)}


class Unreadable(Loader):
    """Loader that fails after its third batch, e.g. as its readers receive a signal."""

    def __init__(self, act):
        self._act = act

    def batches(self, start, stop):
        yield from super().batches(start, min(stop, 3))
        self._act()
        raise ChildProcessError("a process that reads images failed: it was terminated")


TOP1 = "knn/k3_t0.1/top1"


def run(folder, *, at=None, act=None, preemption=None, loader=None, kept=None):
    """Trains or resumes in a folder; calls `act` when step `at` is evaluated.

    `kept` has the fields that say which checkpoints are kept, and `accuracies`, the
    accuracy of each evaluated step.
    """

    def evaluate(state):
        if int(state.step) == at:
            act()
        return {TOP1: kept.accuracies[int(state.step)] if kept else float(state.step)}

    clock = map(float, itertools.count()).__next__
    keep = keep_of(kept, folder) if kept else Keep()
    with CheckpointManager(folder / "checkpoints", keep=keep) as checkpoints:
        state = Count(jnp.int32(0))
        start, state = checkpoints.restore_latest(state) or (0, state)
        with (
            MetricWriter(folder, resume_step=start) as writer,
            Progress(SCHEDULE.num_steps, quiet=True) as progress,
        ):
            state = train(
                state,
                train_step,
                loader or Loader(),
                SCHEDULE,
                log=TrainLog(writer, progress, SCHEDULE, clock=clock),
                checkpoints=checkpoints,
                monitor=evaluate,
                preemption=preemption,
            )
        return int(state.step), checkpoints.steps()


def recorded(folder):
    """Returns (step, "loss" or "knn") of each row of metrics.jsonl."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], "loss" if "loss" in row else "knn") for row in rows]


WHOLE = [
    *((1, "loss"), (2, "loss"), (2, "knn"), (3, "loss")),
    *((4, "loss"), (4, "knn"), (5, "loss"), (6, "loss"), (6, "knn")),
]


NAN = float("nan")


def kept(*accuracies, metric=TOP1, every=0):
    fields = {"keep_newest": 1, "keep_every_steps": every, "keep_best": metric}
    by_step = dict(zip((2, 4, 6), accuracies, strict=True))
    return types.SimpleNamespace(accuracies=by_step, **fields)


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        (kept(3.0, 2.0, 1.0), [2, 6]),
        (kept(1.0, 3.0, 2.0), [4, 6]),
        (kept(3.0, 3.0, 3.0), [2, 6]),  # of equal ones the earliest
        (kept(NAN, 0.0, NAN), [4, 6]),
        (kept(NAN, NAN, NAN), [6]),
        (kept(3.0, 2.0, 1.0, metric=""), [6]),
        (kept(3.0, 2.0, 1.0, metric="", every=4), [4, 6]),
        (kept(3.0, 2.0, 1.0, every=4), [2, 4, 6]),
    ],
)
def test_the_best_and_the_newest_and_regular_checkpoints_are_kept(
    fields, steps, tmp_path
):
    assert run(tmp_path, kept=fields) == (6, steps)


@pytest.mark.parametrize("at", [4, 6])
def test_the_best_checkpoint_is_kept_through_an_interruption(at, tmp_path):
    fields = kept(3.0, 1.0, 2.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, at=at, act=interrupt, kept=fields)
    assert run(tmp_path, kept=fields) == (6, [2, 6])


def test_a_better_step_whose_checkpoint_is_gone_does_not_count(tmp_path):
    """The metric is named when the better checkpoint of step 2 has been deleted."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, at=4, act=interrupt, kept=kept(3.0, 2.0, 1.0, metric=""))
    assert run(tmp_path, kept=kept(3.0, 2.0, 1.0)) == (6, [4, 6])


def interrupt():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_every_evaluated_state_is_saved_and_every_step_is_recorded(tmp_path):
    assert run(tmp_path) == (6, [2, 4, 6])
    assert recorded(tmp_path) == WHOLE


@pytest.mark.parametrize("at", [2, 4, 6])
def test_an_interrupted_evaluation_loses_no_step_and_is_repeated(at, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, at=at, act=interrupt)
    with CheckpointManager(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == at
    assert run(tmp_path)[0] == 6
    assert recorded(tmp_path) == WHOLE


def test_sigterm_saves_the_current_step_and_the_next_run_resumes_from_it(tmp_path):
    with PreemptionHandler() as preemption:
        assert run(tmp_path, at=2, act=terminate, preemption=preemption) == (3, [2, 3])
    assert recorded(tmp_path)[-1] == (3, "loss")
    assert run(tmp_path) == (6, [3, 4, 6])
    assert recorded(tmp_path) == WHOLE


def test_if_a_reader_fails_all_earlier_steps_are_saved(tmp_path):
    with pytest.raises(
        DataError, match="after step 3: a process that reads images failed"
    ):
        run(tmp_path, loader=Unreadable(lambda: None))
    with CheckpointManager(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 3]


def test_a_signal_that_also_ends_the_readers_stops_the_run_cleanly(tmp_path):
    with PreemptionHandler() as preemption:
        found = run(tmp_path, preemption=preemption, loader=Unreadable(terminate))
    assert found == (3, [2, 3])


def test_a_failed_evaluation_ends_the_run_with_its_state_saved(tmp_path):
    def fail():
        raise ValueError("2 images cannot be decoded")

    with pytest.raises(DataError, match="evaluating step 4: 2 images"):
        run(tmp_path, at=4, act=fail)
    with CheckpointManager(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == 4


def test_a_state_is_on_disk_when_it_is_reported_as_saved(tmp_path):
    class Recorded(PreemptionHandler):
        def saved(self, step):
            names = os.listdir(tmp_path / "checkpoints")
            assert not step or str(step) in names
            super().saved(step)

    run(tmp_path, preemption=Recorded())
