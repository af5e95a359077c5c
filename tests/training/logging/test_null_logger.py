"""NullLogger in place of metric writer, progress and checkpoints."""

import jax.numpy as jnp

from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import train
from tests.training.test_loop import SCHEDULE, Count, Loader, train_step


def test_training_without_any_output_takes_the_same_steps():
    """The evaluations and checkpoints of the run also read rows and saved steps."""
    null = NullLogger()
    with null:
        state = train(
            Count(jnp.int32(0)),
            train_step,
            Loader(),
            SCHEDULE,
            log=TrainLog(null, null, SCHEDULE),
            checkpoints=null,
            monitor=lambda state: {"knn/k3_t0.1/top1": float(state.step)},
        )
    assert int(state.step) == SCHEDULE.num_steps
    assert not null.restore_latest(state)
