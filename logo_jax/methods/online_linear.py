"""A linear classifier that learns beside a base method, and does not touch it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax.evaluation.classifier import unit
from logo_jax.methods.base import (
    ENCODER,
    LINEAR,
    BaseMethod,
    Batch,
    Forward,
    Term,
    TrainState,
)
from logo_jax.methods.linear_probe import learn
from logo_jax.training.train_step import no_term


@dataclasses.dataclass(frozen=True)
class OnlineLinear:
    """A base method, and a linear classifier of the features it computes anyway.

    Each step the classifier takes one step on the cross-entropy of the first view's
    backbone features, at unit length and without their gradient. It starts at zero:
    nothing is drawn for it. Images without a label are left out.

    Attributes:
        base: the method that trains the encoder; bare, or inside LoGo.
        encoder: the network that base trains; sows its features.
        num_classes: of the labels.
        tx: optimiser of the classifier.
    """

    base: BaseMethod
    encoder: nn.Module
    num_classes: int
    tx: optax.GradientTransformationExtraArgs

    @property
    def pair_weights(self) -> np.ndarray:
        """The base's."""
        return self.base.pair_weights

    def prepare(self, state: TrainState) -> TrainState:
        """As the base does."""
        return self.base.prepare(state)

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """The base's state, with the classifier's weights and optimiser state."""
        state = self.base.init(key, batch)
        features = jax.eval_shape(
            lambda variables, x: self.encoder.apply(variables, x, method="features"),
            {
                "params": state.params[ENCODER],
                "batch_stats": state.batch_stats[ENCODER],
            },
            batch.global_crops[:1, 0],
        )
        kernel = jnp.zeros((features.shape[-1], self.num_classes))
        params = {LINEAR: {"kernel": kernel, "bias": jnp.zeros(self.num_classes)}}
        return state.replace(
            params=state.params | params,
            opt_states=state.opt_states | {LINEAR: self.tx.init(params)},
        )

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array, term: Term = no_term
    ):
        """The base's update, with a step of the classifier in it."""

        def with_linear(state: TrainState, forward: Forward):
            extra, (state, metrics) = term(state, forward)
            features = unit(jax.lax.stop_gradient(forward.features))
            state, linear = learn(state, features, batch.labels, self.tx)
            linear = {f"linear/{name}": value for name, value in linear.items()}
            return extra, (state, metrics | linear)

        return self.base.update(state, batch, key, with_linear)
