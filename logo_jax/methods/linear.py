"""Linear classifiers of features: their core, a linear probe, and an online probe.

A classifier is {"kernel": [f, c], "bias": [c]}. Its logits and its cross-entropy are
defined here for all that train one: the two below, by the step of any method, and the
grid of `evaluation/linear_grid.py`. `evaluation/logistic.py` shares the logits.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

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

Classifier: TypeAlias = Mapping[str, Any]


def zero_classifier(num_features: int, num_classes: int) -> dict[str, jax.Array]:
    """A classifier whose logits are all 0."""
    shapes = {"kernel": (num_features, num_classes), "bias": (num_classes,)}
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}


def logits(classifier: Classifier, features: Any) -> Any:
    """Scores of the classes, [b, c], for features [b, f]: features @ kernel + bias.

    Of NumPy's arrays they are computed by NumPy, in float64 where these are.
    """
    return features @ classifier["kernel"] + classifier["bias"][None]


def cross_entropy(
    scores: Float[Array, "b c"], labels: Int[Array, " b"]
) -> Float[Array, " b"]:
    """Cross-entropy of each image, in nats; any number where the label is -1."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        scores, jnp.maximum(labels, 0)
    )


def unit_features(features: Any) -> Float[Array, "b f"]:
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
        tx: optimizer of the classifier.

    Source: facebookresearch/moco@main_lincls.py;
        facebookresearch/simsiam@main_lincls.py.
    """

    encoder: nn.Module
    variables: Mapping[str, Any]
    num_classes: int
    tx: optax.GradientTransformationExtraArgs

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """State before the first step."""
        classifier = _first_classifier(
            self.encoder, self.variables, batch, self.num_classes
        )
        kernel = 0.01 * jax.random.normal(key, classifier["kernel"].shape)
        params = {LINEAR: classifier | {"kernel": kernel}}
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


def _first_classifier(
    encoder: nn.Module, variables: Mapping[str, Any], batch: Batch, num_classes: int
) -> dict[str, jax.Array]:
    """The zero classifier of an encoder's features."""
    features = jax.eval_shape(
        lambda variables, x: encoder.apply(variables, x, method="features"),
        dict(variables),
        batch.global_crops[:1, 0],
    )
    return zero_classifier(features.shape[-1], num_classes)


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
        tx: optimizer of the classifier.

    Returns:
        The state, and `loss` in nats and `top1` in percent before the step, means over
        the labelled images of the global batch; 0 where none is labelled.
    """

    def loss_fn(params):
        scores = logits(params[LINEAR], features)
        losses = cross_entropy(scores, labels)
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
        tx: optimizer of the classifier.
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
        """The base's state, with the classifier's weights and optimizer state."""
        state = self.base.init(key, batch)
        classifier = _first_classifier(
            self.encoder, state.variables(ENCODER), batch, self.num_classes
        )
        params = {LINEAR: classifier}
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
