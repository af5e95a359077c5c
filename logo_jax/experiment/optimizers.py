"""Optimizers and learning-rate schedules of a config."""

from collections.abc import Callable
from typing import Any

import optax

from logo_jax.experiment.config import OptimizerConfig, lookup
from logo_jax.training import optim
from logo_jax.training.schedule import TrainingSchedule

OPTIMIZERS = {"sgd": optim.sgd, "lars": optim.lars, "adamw": optim.adamw}


def learning_rate(
    config: OptimizerConfig, rate: float, training: TrainingSchedule, kind: str = ""
) -> optax.Schedule:
    """Returns the schedule of the learning rate.

    Args:
        config: the optimizer group.
        rate: peak learning rate.
        training: length of the training.
        kind: "cosine", "step" or "constant"; if empty, the group's `schedule`.

    Raises:
        ValueError: if the warm-up does not fit the training or the schedule.
    """
    epochs = training.num_steps / training.steps_per_epoch
    if config.warmup_epochs >= epochs and config.warmup_epochs:
        raise ValueError(
            f"config.optimizer.warmup_epochs={config.warmup_epochs} must be shorter "
            f"than the training of {epochs:.4g} epochs"
        )
    steps = round(config.warmup_epochs * training.steps_per_epoch)
    warmup = min(steps, training.num_steps - 1)
    if warmup and config.schedule != "cosine":
        raise ValueError(
            f"config.optimizer.schedule={config.schedule!r} does not support "
            "warm-up; set config.optimizer.warmup_epochs=0, or schedule='cosine'"
        )
    milestones = [round(part * training.num_steps) for part in config.milestones]
    makers: dict[str, Callable[[], optax.Schedule]] = {
        "cosine": lambda: optim.cosine_schedule(
            rate, num_steps=training.num_steps, warmup_steps=warmup
        ),
        "step": lambda: optim.step_schedule(rate, milestones=milestones),
        "constant": lambda: optax.constant_schedule(rate),
    }
    return makers[kind or config.schedule]()


def make_optimizer(
    config: OptimizerConfig, rate: optim.ScalarOrSchedule, make: Any = None, **more: Any
) -> optax.GradientTransformationExtraArgs:
    """Makes the optimizer of a config.

    Args:
        config: the optimizer group.
        rate: learning rate, or a schedule of it.
        make: constructor of the optimizer; if None, the one that the group names.
        **more: arguments of the constructor, in addition to momentum and weight decay.
    """
    named = lookup(OPTIMIZERS, config.name, "config.optimizer.name")
    return (make or named)(
        rate, momentum=config.momentum, weight_decay=config.weight_decay, **more
    )
