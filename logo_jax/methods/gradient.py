"""The gradient step of every method. Gradients are averaged over devices here only."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from logo_jax.methods import diagnostics
from logo_jax.methods.base import (
    Aux,
    Batch,
    ExtraLoss,
    Forward,
    LossMethod,
    Metrics,
    Params,
    TrainState,
    with_forward,
)
from logo_jax.parallel.collectives import gather, global_size, varying
from logo_jax.parallel.mesh import AXIS

LossFn: TypeAlias = Callable[[Params], tuple[jax.Array, Aux]]


def apply_gradients(
    state: TrainState,
    grads: dict[str, Any],
    *,
    tx: optax.GradientTransformationExtraArgs,
    slot: str,
    **extra: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Averages grads over devices and moves the parameters they are named after.

    Args:
        state: the train state.
        grads: this device's gradients, by network.
        tx: the optimiser.
        slot: the name of its state in `state.opt_states`.
        **extra: passed to `tx.update`.

    Returns:
        The new state, and the norm of the averaged gradient of each network.
    """
    grads = jax.lax.pmean(grads, AXIS)
    params = {name: state.params[name] for name in grads}
    updates, opt_state = tx.update(grads, state.opt_states[slot], params, **extra)
    state = state.replace(
        params=state.params | jax.tree.map(jnp.add, params, updates),
        opt_states=state.opt_states | {slot: opt_state},
    )
    return state, {name: optax.tree.norm(grad) for name, grad in grads.items()}


def gradient_step(
    state: TrainState,
    loss_fn: LossFn,
    *,
    trains: tuple[str, ...],
    tx: optax.GradientTransformationExtraArgs,
    slot: str,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """Steps params[trains] down the gradient of loss_fn.

    Args:
        state: the train state.
        loss_fn: from this device's copy of params[trains] to the loss, and, as
            auxiliary values, the state its pass leaves and metrics.
        trains: names of the networks to move.
        tx: their optimiser.
        slot: the name of its state.

    Returns:
        The new state, the metrics, the norm of each network's gradient.
    """
    params = varying({name: state.params[name] for name in trains})
    grads, (state, metrics) = jax.grad(loss_fn, has_aux=True)(params)
    state, grad_norms = apply_gradients(state, grads, tx=tx, slot=slot)
    return state, metrics, grad_norms


def no_extra_loss(state: TrainState, forward: Forward) -> tuple[jax.Array, Aux]:
    """The term that adds nothing to a base method's loss."""
    del forward
    return jnp.zeros(()), (state, {})


def base_update(
    method: LossMethod,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    term: ExtraLoss = no_extra_loss,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """One gradient step of a base method on its loss plus a term.

    Args:
        method: the base method.
        state: the train state.
        batch: this device's rows.
        key: the same on all devices.
        term: adds to the loss a value computed from the state and the forward pass;
            the state it returns (with, say, another network's update) is kept.

    Returns:
        The new state, metrics, and the norm of each network's gradient.
    """
    state = method.prepare(state)

    def loss_fn(params):
        loss, forward = method.loss(params, state, batch, key)
        extra, (after, metrics) = term(with_forward(state, forward), forward)
        numbers = health_of(forward.embeddings)
        metrics = {"loss": loss + extra} | numbers | forward.metrics | metrics
        return loss + extra, (after, metrics)

    return gradient_step(
        state, loss_fn, trains=method.trains, tx=method.tx, slot="base"
    )


def health_of(embeddings: jax.Array) -> Metrics:
    """Health of embeddings [s, b, d] of predicting views, from rows of all devices.

    About `health.MOST_ROWS` images at most, evenly spread over each device's: the same
    ones on any number of devices where the stride divides what each of them has.
    """
    stride = -(-global_size(embeddings.shape[1]) // diagnostics.MOST_ROWS)
    rows = jax.lax.stop_gradient(embeddings[:2, ::stride])
    return diagnostics.measure(gather(rows, axis=1))
