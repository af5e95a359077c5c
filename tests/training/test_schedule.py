import dataclasses

import pytest

from logo_jax.training.schedule import TrainingSchedule

SCHEDULE = TrainingSchedule(
    num_steps=10,
    steps_per_epoch=4,
    log_every_steps=4,
    checkpoint_every_steps=3,
    knn_every_steps=0,
    trivial_baselines=False,
)


def due(when):
    return [step for step in range(11) if when(step)]


def test_actions_are_due_at_their_intervals_and_after_the_last_step():
    assert due(SCHEDULE.logs) == [4, 8, 10]
    assert due(SCHEDULE.saves) == [3, 6, 9, 10]


def test_interval_0_is_due_only_after_the_last_step():
    assert due(SCHEDULE.evaluates) == [10]


@pytest.mark.parametrize(("every", "first"), [(0, 10), (3, 3), (20, 10)])
def test_the_first_evaluation_is_the_first_step_that_evaluates(every, first):
    schedule = dataclasses.replace(SCHEDULE, knn_every_steps=every)
    assert schedule.first_evaluation == first == due(schedule.evaluates)[0]
