"""Optimisers and schedules: SGD in PyTorch's order, clipping to a given norm."""

from collections.abc import Hashable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

ScalarOrSchedule = float | optax.Schedule


def cosine_schedule(
    peak: float, *, num_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """Learning rate of each step: linear from 0 to peak, then half a cosine to 0.

    Source: facebookresearch/simsiam@main_simsiam.py (adjust_learning_rate), by the step
        instead of by the epoch.

    >>> print(f"{cosine_schedule(0.1, num_steps=100)(50).item():.4f}")
    0.0500
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, num_steps)
    if warmup_steps == 0:
        schedule = optax.cosine_decay_schedule(peak, num_steps)
    # optax divides the integer count, which strict promotion refuses
    return lambda count: schedule(jnp.asarray(count, jnp.float32))


def step_schedule(
    peak: float, *, milestones: Sequence[int], factor: float = 0.1
) -> optax.Schedule:
    """Learning rate of each step: peak, multiplied by factor at each milestone.

    Source: facebookresearch/moco@main_moco.py, whose default milestones are 60 % and
        80 % of training.

    >>> print(f"{step_schedule(1.0, milestones=[10, 20])(15).item():.4f}")
    0.1000
    """
    boundaries = jnp.asarray(milestones)
    return lambda count: peak * factor ** jnp.sum(count >= boundaries)


def sgd(
    learning_rate: ScalarOrSchedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformationExtraArgs:
    """SGD as PyTorch has it: decay is added, then momentum, then the rate applied.

    Every parameter decays, biases and batch-norm scales too, as in the released MoCo,
    SimSiam and LoGo.

    Source: torch.optim.SGD.
    """
    return optax.with_extra_args_support(
        optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.trace(momentum),
            optax.scale_by_learning_rate(learning_rate),
        )
    )


def by_network(
    transforms: Mapping[Hashable, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """An optimiser of its own for each network of a dictionary of parameters."""
    return optax.multi_transform(dict(transforms), {name: name for name in transforms})


def clip_to_norm() -> optax.GradientTransformationExtraArgs:
    """Shrinks gradients to the norm `max_norm`, given anew at every update.

    Source: torch.nn.utils.clip_grad_norm_, whose 1e-6 keeps a zero gradient at zero.
    """

    def update(updates, state, params=None, **extra):
        del params
        factor = jnp.minimum(1.0, extra["max_norm"] / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * factor, updates), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )


def clipped_sgd(
    learning_rate: ScalarOrSchedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformationExtraArgs:
    """`sgd` behind `clip_to_norm`: clipped, then decayed, then given momentum.

    Source: ztt1024/LoGo-SSL@trainers.py, the update on the local crops.
    """
    return optax.chain(
        clip_to_norm(),
        sgd(learning_rate, momentum=momentum, weight_decay=weight_decay),
    )
