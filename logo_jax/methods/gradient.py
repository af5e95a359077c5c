"""The gradient step of all methods; only here are gradients averaged over devices."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax.methods import diagnostics
from logo_jax.methods.base import (
    ENCODER,
    Batch,
    ExtraLoss,
    Forward,
    Metrics,
    Params,
    TrainState,
)
from logo_jax.parallel.collectives import gather, global_size, varying
from logo_jax.parallel.mesh import AXIS

Aux: TypeAlias = tuple[TrainState, Metrics]
LossFn: TypeAlias = Callable[[Params], tuple[jax.Array, Aux]]


def apply_gradients(
    state: TrainState,
    grads: dict[str, Any],
    *,
    tx: optax.GradientTransformationExtraArgs,
    opt_state: str,
    **extra: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Averages gradients over devices and updates the parameters they belong to.

    Args:
        state: the train state.
        grads: this device's gradients, by network.
        tx: the optimizer.
        opt_state: name of the optimizer's state in `state.opt_states`.
        **extra: passed to `tx.update`.

    Returns:
        The new state, and the norm of the averaged gradient of each network.
    """
    grads = jax.lax.pmean(grads, AXIS)
    params = {name: state.params[name] for name in grads}
    updates, new = tx.update(grads, state.opt_states[opt_state], params, **extra)
    state = state.replace(
        params=state.params | jax.tree.map(jnp.add, params, updates),
        opt_states=state.opt_states | {opt_state: new},
    )
    return state, {name: optax.tree.norm(grad) for name, grad in grads.items()}


def gradient_step(
    state: TrainState,
    loss_fn: LossFn,
    *,
    trains: tuple[str, ...],
    tx: optax.GradientTransformationExtraArgs,
    opt_state: str,
) -> tuple[TrainState, Metrics, dict[str, jax.Array]]:
    """Takes one optimizer step of params[trains] on loss_fn.

    Args:
        state: the train state.
        loss_fn: function from this device's copy of params[trains] to the loss and, as
            auxiliary values, the state after the forward pass and metrics.
        trains: names of the networks to update.
        tx: their optimizer.
        opt_state: name of the optimizer's state in `state.opt_states`.

    Returns:
        The new state, the metrics, and the norm of each network's gradient.
    """
    params = varying({name: state.params[name] for name in trains})
    grads, (state, metrics) = jax.grad(loss_fn, has_aux=True)(params)
    state, norms = apply_gradients(state, grads, tx=tx, opt_state=opt_state)
    return state, metrics, norms


def no_extra_loss(state: TrainState, forward: Forward) -> tuple[jax.Array, Aux]:
    """Returns an extra loss of zero and the unchanged state."""
    del forward
    return jnp.zeros(()), (state, {})


class GradientMethod(abc.ABC):
    """A method whose update is one gradient step on its loss.

    Subclasses are frozen dataclasses. They define `init`, `loss` and the fields below.

    Attributes:
        encoder: network from images to embeddings [..., d].
        tx: optimizer of the networks in `trains`.
        pair_weights: weight of each directed pair of views, [s, t].
        running_stats: views that update the encoder's running statistics: "all", or
            "globals" (local crops do not).
        trains: names of the networks that the loss trains.
    """

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    running_stats: str
    trains: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step; only the batch's shapes matter."""

    @abc.abstractmethod
    def loss(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Forward]:
        """Returns the loss on this device's rows, and the results of its forward pass.

        Args:
            state: the train state; the loss is differentiated with respect to its
                `params[trains]`.
            batch: this device's rows.
            key: random key, the same on all devices.
        """

    def update_momentum_encoder(self, state: TrainState) -> TrainState:
        """Updates the momentum encoder, before the gradient step.

        By default there is no momentum encoder, and the state does not change.
        """
        return state

    def update(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        extra_loss: ExtraLoss = no_extra_loss,
    ) -> tuple[TrainState, Metrics]:
        """Updates the momentum encoder, then takes a gradient step on the loss.

        Args:
            state: the train state.
            batch: this device's rows.
            key: random key, the same on all devices.
            extra_loss: term that is added to the loss. The state it returns, which may
                contain another network's update, is kept.

        Returns:
            The new state and the metrics, with the norm of the encoder's gradient.
        """
        state = self.update_momentum_encoder(state)

        def loss_fn(params):
            trained = state.replace(params=state.params | params)
            loss, forward = self.loss(trained, batch, key)
            extra, (after, metrics) = extra_loss(state.after(forward), forward)
            health = embedding_health(forward.embeddings)
            metrics = {"loss": loss + extra} | health | forward.metrics | metrics
            return loss + extra, (after, metrics)

        state, metrics, norms = gradient_step(
            state, loss_fn, trains=self.trains, tx=self.tx, opt_state="base"
        )
        return state, metrics | {"grad_norm": norms[ENCODER]}


def embedding_health(embeddings: jax.Array) -> Metrics:
    """Computes diagnostics of the first two predicting views, over all devices.

    Args:
        embeddings: this device's embeddings, [s, b, d].

    Returns:
        The metrics. At most about `diagnostics.MOST_ROWS` images are used, evenly
        spaced among each device's rows. The images are the same on any number of
        devices if the spacing divides the number of rows of a device.
    """
    spacing = -(-global_size(embeddings.shape[1]) // diagnostics.MOST_ROWS)
    rows = jax.lax.stop_gradient(embeddings[:2, ::spacing])
    return diagnostics.measure(gather(rows, axis=1))
