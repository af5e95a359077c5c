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


def test_things_are_due_every_so_many_steps_and_after_the_last():
    assert due(SCHEDULE.logs) == [4, 8, 10]
    assert due(SCHEDULE.saves) == [3, 6, 9, 10]


def test_every_0_steps_is_after_the_last_alone():
    assert due(SCHEDULE.evaluates) == [10]
