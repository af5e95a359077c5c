"""The gradient step of all methods; only here are gradients averaged over devices."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeAlias, cast

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
    Observer,
    Params,
    Targets,
    TrainState,
    no_observer,
)
from logo_jax.methods.parts import join_rows, mean_of_parts, num_parts, split_rows
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
        separable: whether the loss of a batch is the mean of the losses of its images,
            apart from batch norm, and changes no memory. If the encoder has several
            parts, the gradient of such a loss is computed part by part; that of another
            loss needs the embeddings of all parts first, and encodes each part again.
    """

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    running_stats: str
    trains: ClassVar[tuple[str, ...]]
    separable: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step; only the batch's shapes matter."""

    @abc.abstractmethod
    def loss(
        self, state: TrainState, batch: Batch, targets: Any
    ) -> tuple[jax.Array, Forward]:
        """Returns the loss on this device's rows, and the results of its forward pass.

        Args:
            state: the train state; the loss is differentiated with respect to its
                `params[trains]`.
            batch: this device's rows.
            targets: the embeddings that `targets` returned for these rows.
        """

    def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Targets:
        """Computes what the loss needs and no gradient passes through.

        By default there is none.

        Args:
            state: the train state, with the updated momentum encoder.
            batch: this device's rows.
            key: random key, the same on all devices.
        """
        del state, batch, key
        return Targets(None, {}, {}, {})

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
        extra_loss: ExtraLoss | None = None,
        observe: Observer = no_observer,
    ) -> tuple[TrainState, Metrics]:
        """Updates the momentum encoder, then takes a gradient step on the loss.

        Args:
            state: the train state.
            batch: this device's rows.
            key: random key, the same on all devices.
            extra_loss: term that is added to the loss; None: no term. The state it
                returns, which may contain another network's update, is kept.
            observe: function that sees the forward pass, outside the gradient. The
                state it returns is kept.

        Returns:
            The new state and the metrics, with the norm of the encoder's gradient.
        """
        state = self.update_momentum_encoder(state)
        targets = self.targets(state, batch, key)
        params = varying({name: state.params[name] for name in self.trains})
        if self.separable and extra_loss is None and num_parts(self.encoder) > 1:
            loss, forward, grads = self._by_parts(state, params, batch, targets)
            after, metrics = state.after(targets).after(forward), {}
        else:

            def loss_fn(params):
                loss, forward = self._loss(state, params, batch, targets.embeddings)
                after, metrics = state.after(targets).after(forward), {}
                if extra_loss is not None:
                    extra, (after, metrics) = extra_loss(after, forward)
                    loss = loss + extra
                return loss, (forward, after, metrics)

            (loss, (forward, after, metrics)), grads = jax.value_and_grad(
                loss_fn, has_aux=True
            )(params)
        after, observed = observe(after, forward)
        state, norms = apply_gradients(after, grads, tx=self.tx, opt_state="base")
        health = embedding_health(forward.embeddings)
        metrics = health | targets.metrics | forward.metrics | metrics | observed
        return state, metrics | {"loss": loss, "grad_norm": norms[ENCODER]}

    def _loss(self, state, params, batch, targets):
        """Returns the loss at these values of the trained parameters."""
        return self.loss(state.replace(params=state.params | params), batch, targets)

    def _by_parts(self, state, params, batch, targets):
        """Returns loss, forward pass and gradient, computed one part after another."""
        parts = num_parts(self.encoder)
        value_and_grad = jax.value_and_grad(self._of_one_part()._loss, 1, has_aux=True)

        def add_part(total, rows):
            results, grads = value_and_grad(state, params, *rows)
            return jax.tree.map(jnp.add, total, grads), results

        rows = split_rows(batch, parts, axis=0)
        rows = rows, split_rows(targets.embeddings, parts, axis=1)
        zeros = jax.tree.map(jnp.zeros_like, params)
        total, (losses, forwards) = jax.lax.scan(add_part, zeros, rows)
        forward = Forward(
            embeddings=join_rows(forwards.embeddings, axis=1),
            batch_stats=mean_of_parts(forwards.batch_stats),
            memory={},
            metrics=mean_of_parts(forwards.metrics),
            features=join_rows(forwards.features, axis=0),
        )
        grads = jax.tree.map(lambda x: x / parts, total)
        return losses.mean(), forward, grads

    def _of_one_part(self) -> Self:
        """Returns this method with networks that encode all images together."""
        networks = {
            name: network.clone(parts=1)
            for name, network in vars(self).items()
            if num_parts(network) > 1
        }
        return dataclasses.replace(cast(Any, self), **networks)


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
