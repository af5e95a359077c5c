"""Optimizers and schedules: SGD in PyTorch's order, LARS, AdamW, gradient clipping."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

ScalarOrSchedule = float | optax.Schedule


def cosine_schedule(
    peak: float, *, num_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """Learning rate that rises linearly from 0 to peak, then decays to 0 by a cosine.

    Source: facebookresearch/simsiam@main_simsiam.py (adjust_learning_rate), computed
        per step instead of per epoch.

    >>> print(f"{cosine_schedule(0.1, num_steps=100)(50).item():.4f}")
    0.0500
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, num_steps)
    if warmup_steps == 0:
        schedule = optax.cosine_decay_schedule(peak, num_steps)
    # optax divides the integer count, an error under strict dtype promotion
    return lambda count: schedule(jnp.asarray(count, jnp.float32))


def step_schedule(
    peak: float, *, milestones: Sequence[int], factor: float = 0.1
) -> optax.Schedule:
    """Learning rate that starts at peak and is multiplied by factor at each milestone.

    Source: facebookresearch/moco@main_moco.py, whose default milestones are 60 % and
        80 % of training.

    >>> print(f"{step_schedule(1.0, milestones=[10, 20])(15).item():.4f}")
    0.1000
    """
    # In a short run, milestones may round to the same step; both factors apply.
    scales = {step: factor ** milestones.count(step) for step in milestones}
    schedule = optax.piecewise_constant_schedule(peak, scales)
    # optax compares the count with 0.0, an error under strict dtype promotion
    return lambda count: schedule(jnp.asarray(count, jnp.float32))


def momentum_schedule(base: float, *, num_steps: int) -> optax.Schedule:
    """Momentum of BYOL's target network, which rises from base to 1 by a cosine.

    Args:
        base: momentum of the first step, in [0, 1].
        num_steps: number of steps after which the momentum is 1 and the target network
            no longer changes.

    Raises:
        ValueError: if base is not in [0, 1].

    Source: Grill et al. 2020, section 3.2, https://arxiv.org/abs/2006.07733;
        google-deepmind/deepmind-research@byol/utils/schedules.py (target_ema).

    >>> print(f"{momentum_schedule(0.99, num_steps=100)(50).item():.4f}")
    0.9950
    """
    if not 0 <= base <= 1:
        raise ValueError(f"momentum={base} must lie in [0, 1]; try 0.99")
    share = cosine_schedule(1 - base, num_steps=num_steps)
    return lambda count: 1 - share(count)


def sgd(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: float,
    weight_decay: float,
    frozen_steps: int | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """SGD in PyTorch's order: weight decay, then momentum, then the learning rate.

    Weight decay applies to every parameter, including biases and batch-norm scales, as
    in the released code of MoCo, SimSiam and LoGo.

    Args:
        learning_rate: a number or a schedule; the schedule also counts frozen steps.
        momentum: decay factor of the accumulated gradients, in [0, 1).
        weight_decay: multiple of each parameter that is added to its gradient.
        frozen_steps: number of initial steps that change no parameter and accumulate no
            momentum, like parameters without a gradient in PyTorch (used for SwAV's
            prototypes). None means no frozen steps and no step counter in the state.
        nesterov: whether a step uses the accumulated gradients as they will be after
            the next step, if the gradient stays the same.

    Source: torch.optim.SGD.
    """
    direction = [
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum, nesterov=nesterov),
    ]
    return _descent(direction, learning_rate, frozen_steps)


def lars(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: float,
    weight_decay: float,
    frozen_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """LARS as in SwAV: SGD with a learning rate for each layer.

    Gradients are scaled by `layerwise_rates`. The arguments are those of `sgd`.

    Source: facebookresearch/swav@main_swav.py; You et al. 2017,
        https://arxiv.org/abs/1708.03888.
    """
    direction = [layerwise_rates(weight_decay), optax.trace(momentum)]
    return _descent(direction, learning_rate, frozen_steps)


def adamw(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: float,
    weight_decay: float,
    frozen_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with PyTorch's defaults: beta2 is 0.999, epsilon 1e-8.

    Weight decay applies to every parameter, as in MoCo v3's code. It is decoupled: a
    step subtracts learning_rate * weight_decay times the parameter.

    Args:
        learning_rate: as for `sgd`.
        momentum: decay factor of the mean of the gradients (beta1), in [0, 1).
        weight_decay: fraction of each parameter, multiplied by the learning rate.
        frozen_steps: as for `sgd`.

    Source: torch.optim.AdamW; facebookresearch/moco-v3@main_moco.py, which gives it all
        parameters in one group.
    """
    adam = optax.scale_by_adam(momentum, 0.999, 1e-8)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        # optax raises beta to an integer power, an error under strict dtype promotion
        with jax.numpy_dtype_promotion("standard"):
            return adam.update(updates, state, params)

    direction = [
        optax.GradientTransformation(adam.init, update),
        optax.add_decayed_weights(weight_decay),
    ]
    return _descent(direction, learning_rate, frozen_steps)


def frozen(
    tx: optax.GradientTransformation, name: str
) -> optax.GradientTransformationExtraArgs:
    """Keeps the parameters under this name, at any depth, as they are.

    Like parameters without a gradient in PyTorch, they have no weight decay and no
    state of the optimizer.

    Args:
        tx: optimizer of all other parameters.
        name: a key in the path of the parameters.
    """

    def labels(params: Any) -> Any:
        key = jax.tree_util.DictKey(name)
        return jax.tree.map_with_path(
            lambda path, _: "frozen" if key in path else "trained", params
        )

    return optax.multi_transform({"trained": tx, "frozen": optax.set_to_zero()}, labels)


def layerwise_rates(
    weight_decay: float, trust_coefficient: float = 1e-3
) -> optax.GradientTransformation:
    """Adds weight decay and scales gradients in proportion to their parameter's norm.

    The factor is trust_coefficient times the parameter's norm, divided by the sum of
    the norms of gradient and decay; `optax.lars` divides by the norm of their sum. If a
    parameter or its gradient is zero, the gradient is neither scaled nor decayed.

    Source: NVIDIA/apex@apex/parallel/LARC.py with clip=False.
    """

    def adapt(gradient, param):
        size, slope = optax.tree.norm(param), optax.tree.norm(gradient)
        rate = trust_coefficient * size / (slope + weight_decay * size + 1e-8)
        adapted = rate * (gradient + weight_decay * param)
        return jnp.where((size > 0) & (slope > 0), adapted, gradient)

    return optax.stateless_with_tree_map(adapt)


def _descent(
    direction: list[optax.GradientTransformation],
    learning_rate: ScalarOrSchedule,
    frozen_steps: int | None,
) -> optax.GradientTransformationExtraArgs:
    """Chains a direction and the learning rate; frozen steps have no direction."""
    if frozen_steps is not None:
        direction = [
            optax.conditionally_mask(
                optax.chain(*direction),
                lambda step, **extra: jnp.greater_equal(step, frozen_steps),
            )
        ]
    return optax.with_extra_args_support(
        optax.chain(*direction, optax.scale_by_learning_rate(learning_rate))
    )


def by_network(
    transforms: Mapping[Hashable, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """Combines separate optimizers for the networks in a dictionary of parameters."""
    return optax.multi_transform(dict(transforms), {name: name for name in transforms})


def clip_to_norm() -> optax.GradientTransformationExtraArgs:
    """Clips gradients to the global norm `max_norm`, an argument of every update.

    In contrast, the norm of `optax.clip_by_global_norm` is constant.

    Source: torch.nn.utils.clip_grad_norm_, including the 1e-6 in the denominator, which
        keeps a zero gradient at zero.
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
    """SGD on gradients that are clipped to the norm `max_norm`, given to every update.

    The arguments are those of `sgd`.

    Source: ztt1024/LoGo-SSL@trainers.py, the update on the local crops.
    """
    return optax.chain(
        clip_to_norm(),
        sgd(learning_rate, momentum=momentum, weight_decay=weight_decay),
    )
