"""Optimisers and schedules that a config describes."""

from collections.abc import Callable
from typing import Any

import optax

from logo_jax.experiment.reader import Reader
from logo_jax.training import optim
from logo_jax.training.schedule import TrainingSchedule

OPTIMIZERS = {"sgd": optim.sgd, "lars": optim.lars}


def schedules(
    read: Reader, rate: float, plan: TrainingSchedule
) -> dict[str, Callable[[], optax.Schedule]]:
    """Makers of the learning rate of each step, by name.

    Args:
        read: the config's group `optimizer`.
        rate: at its peak.
        plan: of the loop.
    """
    epochs = plan.num_steps / plan.steps_per_epoch
    if read.warmup_epochs >= epochs and read.warmup_epochs:
        raise ValueError(
            f"config.optimizer.warmup_epochs={read.warmup_epochs} must be shorter than "
            f"the training of {epochs:.4g} epochs"
        )
    warmup = min(round(read.warmup_epochs * plan.steps_per_epoch), plan.num_steps - 1)
    if warmup and read.schedule != "cosine":
        raise ValueError(
            f"config.optimizer.schedule={read.schedule!r} has no warm-up; set "
            "config.optimizer.warmup_epochs=0, or schedule='cosine'"
        )
    milestones = [round(part * plan.num_steps) for part in read.milestones]
    return {
        "cosine": lambda: optim.cosine_schedule(
            rate, num_steps=plan.num_steps, warmup_steps=warmup
        ),
        "step": lambda: optim.step_schedule(rate, milestones=milestones),
        "constant": lambda: optax.constant_schedule(rate),
    }


def make_optimizer(
    read: Reader, rate: optim.ScalarOrSchedule, make: Any = None, **fields: Any
) -> optax.GradientTransformationExtraArgs:
    """The optimiser a config describes, at a learning rate.

    Args:
        read: the config's group `optimizer`.
        rate: learning rate, or a schedule of it.
        make: its constructor; the config's if None.
        **fields: of the constructor, beside momentum and weight decay.
    """
    named = read.choice("name", OPTIMIZERS)
    return (make or named)(
        rate,
        momentum=read.momentum,
        weight_decay=read.weight_decay,
        **fields,
    )
