"""Collapse detector on synthetic metrics and on networks made to collapse."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.parallel.mesh import batch_sharding
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.collapse import (
    ROLLBACKS_FILE,
    CollapseDetector,
    CollapseError,
    next_rollback,
    record_rollback,
    rollbacks,
)
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.training.logging.progress import Progress
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import train
from logo_jax.training.schedule import TrainingSchedule
from tests.contracts import cases

WELL = {"loss": -0.8, "health/std": 0.98, "health/rank": 4.5}
POINT = WELL | {"health/std": 0.01}
FEW = WELL | {"health/rank": 1.8}


def run_detector(policy, *each, seeds=(0,)):
    """Returns a detector that has seen rows from step 120 on, and its reports."""
    reports = []
    detector = CollapseDetector(policy, seeds, reports.append)
    for i, values in enumerate(each):
        detector(120 + 20 * i, values)
    return detector, reports


def test_log_reports_a_collapse_once_and_continues():
    detector, reports = run_detector("log", *[POINT] * 5)
    (line,) = reports
    assert line.startswith("step 160: collapsed: all images are embedded as one point")
    assert detector.allows_checkpoint


def test_recovery_and_relapse_are_both_reported():
    _, reports = run_detector("log", *[FEW] * 3, WELL, *[FEW] * 3)
    states = [line.split(": ")[:2] for line in reports]
    assert states == [
        ["step 160", "partial"],
        ["step 180", "healthy"],
        ["step 240", "partial"],
    ]


def test_a_filling_queue_is_reported_as_normal_once():
    rises = [WELL | {"loss": x, "health/queue_fill": 0.5} for x in (2, 3, 2.5, 4, 5)]
    _, reports = run_detector("stop", *rises, WELL)
    (line,) = reports
    assert line.startswith("step 140: healthy: the loss rises because the queue fills")


@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_stop_and_rollback_end_the_run_and_save_no_suspicious_state(policy):
    detector, reports = run_detector(policy, POINT, POINT)
    assert not detector.allows_checkpoint
    with pytest.raises(CollapseError, match="at step 160: all images") as caught:
        detector(160, POINT)
    assert caught.value.step == 160
    assert not reports
    assert run_detector(policy, POINT, FEW)[0].allows_checkpoint


def test_off_reports_nothing():
    detector, reports = run_detector("off", *[POINT] * 5)
    assert detector.allows_checkpoint
    assert not reports


def test_the_worst_of_several_seeds_decides():
    def line(*stds):
        each = {f"health/std/seed_{seed}": x for seed, x in enumerate(stds, 4)}
        return {"loss": 0.0, "health/std": float(np.mean(stds))} | each

    sick = line(0.9, 0.01)
    detector, _ = run_detector("stop", sick, sick, seeds=(4, 5))
    assert not detector.allows_checkpoint
    with pytest.raises(CollapseError):
        detector(160, sick)
    run_detector("stop", *[line(0.9, 0.9)] * 4, seeds=(4, 5))
    run_detector("stop", line(0.9, 0.01), *[line(0.01, 0.9)] * 2, seeds=(4, 5))


def test_rollbacks_are_counted_on_disk_and_end_after_three(tmp_path):
    collapse = CollapseError(160, "all one")
    assert rollbacks(tmp_path) == []
    assert [next_rollback(times, collapse) for times in range(3)] == [1, 2, 3]
    with pytest.raises(CollapseError, match="all one"):
        next_rollback(3, collapse)
    for at in (160, 80):
        record_rollback(tmp_path, at)
    assert rollbacks(tmp_path) == [160, 80]
    assert [file.name for file in tmp_path.iterdir()] == [ROLLBACKS_FILE]


class Numbered:
    """Loader whose batches are the step numbers."""

    waits = False
    images_per_step = 1

    def batches(self, start, stop):
        for number in range(start, stop):
            yield number, 0


def trained(folder, metrics_of, policy="stop", log_every_steps=20, num_steps=300):
    """Trains a state that only counts steps, with synthetic metrics of each step."""

    def counted(state, examples, _epoch):
        return state.replace(step=state.step + 1), metrics_of(examples + 1)

    schedule = TrainingSchedule(
        num_steps, 10, log_every_steps, 20, 0, trivial_baselines=False
    )
    empty = cases.one_device("simsiam").init()
    with (
        CheckpointManager(folder / "checkpoints") as checkpoints,
        MetricWriter(folder, resume_step=0) as writer,
        Progress(num_steps, quiet=True) as progress,
    ):
        train(
            empty.replace(params={}, opt_states={}, batch_stats={}),
            counted,
            Numbered(),
            schedule,
            log=TrainLog(
                writer,
                progress,
                schedule,
                clock=map(float, itertools.count()).__next__,
                collapse_detector=CollapseDetector(policy, (0,), lambda line: None),
            ),
            checkpoints=checkpoints,
        )


def kept(folder):
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.steps()


def collapses_after(last_healthy):
    def metrics_of(number):
        values = WELL if number <= last_healthy else POINT
        return {name: jnp.float32(value) for name, value in values.items()}

    return metrics_of


def test_a_stopped_run_keeps_no_suspicious_checkpoint(tmp_path):
    with pytest.raises(CollapseError, match="at step 200"):
        trained(tmp_path, collapses_after(140))
    assert kept(tmp_path) == [100, 120, 140]
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 200


def test_with_log_a_collapsed_run_is_saved_until_its_end(tmp_path):
    trained(tmp_path, collapses_after(140), policy="log")
    assert kept(tmp_path) == [260, 280, 300]


def test_a_loss_that_is_not_finite_stops_the_run_before_the_next_row(tmp_path):
    seen = []

    def metrics_of(number):
        seen.append(number)
        loss = jnp.float32(math.nan if number >= 7 else 1.0)
        return {"loss": jax.block_until_ready(loss)}

    with pytest.raises(
        FloatingPointError, match=r"step 7 is nan, while the loss of step 6 was"
    ):
        trained(tmp_path, metrics_of, log_every_steps=1000, num_steps=1000)
    assert seen[-1] == 7


def lines_of(trainer, num_lines, every=20):
    """Yields (step, mean metrics of `every` steps) of training on random images."""
    state = trainer.init()
    batches = [
        jax.device_put(cases.batch(i), batch_sharding(trainer.mesh)) for i in range(8)
    ]
    for line in range(1, num_lines + 1):
        metrics = []
        for i in range(every):
            state, values = trainer.compiled(state, batches[i % 8], jnp.int32(0))
            metrics.append(values)
        means = jax.tree.map(lambda *x: float(np.mean(x)), *jax.device_get(metrics))
        yield line * every, means


def judged(trainer, num_lines):
    """Trains SimSiam on noise; returns reports and if checkpoints were allowed."""
    reports, trusted = [], []
    detector = CollapseDetector("stop", (0,), reports.append)
    for line in lines_of(trainer, num_lines):
        detector(*line)
        trusted.append(detector.allows_checkpoint)
    return reports, trusted


def test_simsiam_without_its_stop_gradient_is_caught_within_200_steps(monkeypatch):
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda x: x)
    with pytest.raises(CollapseError, match="lie on one line") as caught:
        judged(cases.Trainer(cases.simsiam(norms=cases.PER_DEVICE)), num_lines=20)
    assert caught.value.step <= 200


def test_simsiam_with_its_stop_gradient_is_trusted_throughout():
    reports, trusted = judged(cases.one_device("simsiam"), num_lines=20)
    assert not reports
    assert all(trusted)
