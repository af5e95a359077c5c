"""Linear classifiers of features: a probe of a frozen encoder, and an online probe."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from numpy import ndarray as Numpy

from logo_jax.losses import l2_normalize
from logo_jax.methods.base import (
    ENCODER,
    LINEAR,
    BaseMethod,
    Batch,
    ExtraLoss,
    Forward,
    Metrics,
    TrainState,
)
from logo_jax.methods.gradient import gradient_step, no_extra_loss
from logo_jax.parallel.collectives import as_mean_over_devices, gather


def logits(
    classifier: Mapping[str, Float[Array, "..."] | Float[Numpy, "..."]],
    features: Float[Array, "b f"] | Float[Numpy, "b f"],
) -> Float[Array, "b c"]:
    """Scores of the classes for features: their products with the weights, plus bias.

    Args:
        classifier: `kernel` [f, c] and `bias` [c].
        features: of b images.
    """
    return jnp.dot(features, classifier["kernel"]) + classifier["bias"][None]


def unit_features(
    features: Float[Array, "b f"] | Float[Numpy, "b f"],
) -> Float[Array, "b f"]:
    """Features at unit length, float32: what the online classifier sees."""
    return l2_normalize(jnp.asarray(features, jnp.float32))


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of a frozen encoder's backbone features.

    It sees the first global crop of each image; the encoder is in evaluation mode.
    Weights start as N(0, 0.01), the bias at zero. The encoder lives in the state's
    memory: closed over, it would be a constant of the compiled step, which then could
    be neither cached for another checkpoint nor shared by several processes. It costs
    a copy in each checkpoint, which stands alone for that; a donated step passes it
    through where it is.

    Attributes:
        encoder: the network.
        variables: its "params" and "batch_stats", frozen.
        num_classes: of the labels.
        tx: optimiser of the classifier.

    Source: facebookresearch/moco@main_lincls.py;
        facebookresearch/simsiam@main_lincls.py.
    """

    encoder: nn.Module
    variables: Mapping[str, Any]
    num_classes: int
    tx: optax.GradientTransformationExtraArgs

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """State before the first step."""
        crop = batch.global_crops[:1, 0]
        size = jax.eval_shape(self._features, self.variables, crop).shape[-1]
        kernel = 0.01 * jax.random.normal(key, (size, self.num_classes))
        params = {LINEAR: {"kernel": kernel, "bias": jnp.zeros(self.num_classes)}}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={},
            opt_states={LINEAR: self.tx.init(params)},
            memory={ENCODER: dict(self.variables)},
        )

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """One step of the classifier; `loss` and `top1` are from before it."""
        del key  # nothing random beyond the crops
        crops = batch.global_crops[:, 0]
        features = self._features(state.memory[ENCODER], crops)
        return train_classifier(state, features, batch.labels, self.tx)

    def _features(self, variables, images):
        features = self.encoder.apply(variables, images, method="features")
        return jnp.asarray(features, jnp.float32)


def train_classifier(
    state: TrainState,
    features: jax.Array,
    labels: jax.Array,
    tx: optax.GradientTransformationExtraArgs,
) -> tuple[TrainState, Metrics]:
    """State after one step of its classifier on the cross-entropy, and metrics.

    Args:
        state: with the classifier as `params["linear"]`.
        features: this device's [b, f], constants.
        labels: this device's [b]; -1 where unknown: such images are left out.
        tx: optimiser of the classifier.

    Returns:
        The state, and `loss` in nats and `top1` in percent before the step, means over
        the labelled images of the global batch; 0 where none is labelled.
    """

    def loss_fn(params):
        scores = logits(params[LINEAR], features)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(
            scores, jnp.maximum(labels, 0)
        )
        right = (scores.argmax(-1) == labels).astype(jnp.float32)
        known = (labels >= 0).astype(jnp.float32)
        rows = jnp.stack([losses * known, right, known])
        loss, right, count = gather(rows, axis=1).sum(1)
        count = jnp.maximum(count, 1.0)
        loss = as_mean_over_devices(loss / count)
        return loss, (state, {"loss": loss, "top1": 100 * right / count})

    state, metrics, _ = gradient_step(
        state, loss_fn, trains=(LINEAR,), tx=tx, opt_state=LINEAR
    )
    return state, metrics


@dataclasses.dataclass(frozen=True)
class OnlineLinear:
    """A base method, and a linear classifier of the features it computes anyway.

    Each step the classifier takes one step on the cross-entropy of the first view's
    backbone features, at unit length and without their gradient. It starts at zero:
    nothing is drawn for it. Images without a label are left out.

    Attributes:
        base: the method that trains the encoder, which sows its features.
        num_classes: of the labels.
        tx: optimiser of the classifier.
    """

    base: BaseMethod
    num_classes: int
    tx: optax.GradientTransformationExtraArgs

    @property
    def encoder(self) -> nn.Module:
        """The base's."""
        return self.base.encoder

    @property
    def pair_weights(self) -> np.ndarray:
        """The base's."""
        return self.base.pair_weights

    @property
    def running_stats(self) -> str:
        """The base's."""
        return self.base.running_stats

    def update_momentum_encoder(self, state: TrainState) -> TrainState:
        """As the base does."""
        return self.base.update_momentum_encoder(state)

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """The base's state, with the classifier's weights and optimiser state."""
        state = self.base.init(key, batch)
        features = jax.eval_shape(
            lambda variables, x: self.encoder.apply(variables, x, method="features"),
            state.variables(ENCODER),
            batch.global_crops[:1, 0],
        )
        kernel = jnp.zeros((features.shape[-1], self.num_classes))
        params = {LINEAR: {"kernel": kernel, "bias": jnp.zeros(self.num_classes)}}
        return state.replace(
            params=state.params | params,
            opt_states=state.opt_states | {LINEAR: self.tx.init(params)},
        )

    def update(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        extra_loss: ExtraLoss = no_extra_loss,
    ):
        """The base's update, with a step of the classifier in it."""

        def with_linear(state: TrainState, forward: Forward):
            extra, (state, metrics) = extra_loss(state, forward)
            features = unit_features(jax.lax.stop_gradient(forward.features))
            state, linear = train_classifier(state, features, batch.labels, self.tx)
            linear = {f"linear/{name}": value for name, value in linear.items()}
            return extra, (state, metrics | linear)

        return self.base.update(state, batch, key, with_linear)
