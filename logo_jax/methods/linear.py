"""Linear classifiers of features: shared functions, a linear probe and an online probe.

A classifier is {"kernel": [f, c], "bias": [c]}. Its logits and its cross-entropy are
defined here for all code that trains one: the two classes below, which are trained by
the steps of a method, `methods/fine_tune.py`, and the grid of
`evaluation/linear_grid.py`. `evaluation/logistic.py` uses the same logits.
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
    Observer,
    TrainState,
    no_observer,
)
from logo_jax.methods.gradient import gradient_step
from logo_jax.parallel.collectives import as_mean_over_devices, gather

Classifier: TypeAlias = Mapping[str, Any]


def zero_classifier(num_features: int, num_classes: int) -> dict[str, jax.Array]:
    """Returns a classifier whose logits are all 0."""
    shapes = {"kernel": (num_features, num_classes), "bias": (num_classes,)}
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}


def logits(classifier: Classifier, features: Any) -> Any:
    """Returns class scores [b, c] of features [b, f]: features @ kernel + bias.

    NumPy arrays are computed by NumPy, in float64 if they are float64.
    """
    return features @ classifier["kernel"] + classifier["bias"][None]


def cross_entropy(
    scores: Float[Array, "b c"], labels: Int[Array, " b"]
) -> Float[Array, " b"]:
    """Computes the cross-entropy of each image, in nats; arbitrary for label -1."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        scores, jnp.maximum(labels, 0)
    )


def unit_features(features: Any) -> Float[Array, "b f"]:
    """Scales features to unit length, float32: the input of the online classifier."""
    return l2_normalize(jnp.asarray(features, jnp.float32))


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of a frozen encoder's backbone features.

    Its input is the first global crop of each image, with the encoder in evaluation
    mode. Weights are initialized from a normal distribution of standard deviation 0.01,
    the bias to zero. The encoder is in the state's memory. If the step closed over it,
    it would be a constant of the compiled step, which could then neither be cached for
    another checkpoint nor be shared by several processes. Each checkpoint contains a
    copy of the encoder, so it can be used alone. A donated step returns the encoder
    without copying it.

    Attributes:
        encoder: network whose backbone features are classified.
        variables: the encoder's "params" and "batch_stats", which do not change.
        num_classes: number of classes of the labels.
        tx: optimizer of the classifier.

    Source: facebookresearch/moco@main_lincls.py;
        facebookresearch/simsiam@main_lincls.py.
    """

    encoder: nn.Module
    variables: Mapping[str, Any]
    num_classes: int
    tx: optax.GradientTransformationExtraArgs

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step."""
        first = (self.encoder, self.variables, batch, self.num_classes)
        params = {LINEAR: random_classifier(key, *first)}
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
        """Takes one step of the classifier; metrics are from before the step."""
        del key  # only the crops are random
        crops = batch.global_crops[:, 0]
        features = self._features(state.memory[ENCODER], crops)
        return train_classifier(state, features, batch.labels, self.tx)

    def _features(self, variables, images):
        features = self.encoder.apply(variables, images, method="features")
        return jnp.asarray(features, jnp.float32)


def _first_classifier(
    encoder: nn.Module, variables: Mapping[str, Any], batch: Batch, num_classes: int
) -> dict[str, jax.Array]:
    """Returns a classifier of an encoder's features, with all parameters 0.

    Only the shape of the batch's images is used, to find the number of features.
    """
    features = jax.eval_shape(
        lambda variables, x: encoder.apply(variables, x, method="features"),
        dict(variables),
        batch.global_crops[:1, 0],
    )
    return zero_classifier(features.shape[-1], num_classes)


def random_classifier(
    key: jax.Array,
    encoder: nn.Module,
    variables: Mapping[str, Any],
    batch: Batch,
    num_classes: int,
) -> dict[str, jax.Array]:
    """Returns a classifier with normal weights of standard deviation 0.01, and bias 0.

    Only the shape of the batch's images is used, to find the number of features.
    """
    zero = _first_classifier(encoder, variables, batch, num_classes)
    return zero | {"kernel": 0.01 * jax.random.normal(key, zero["kernel"].shape)}


def train_classifier(
    state: TrainState,
    features: jax.Array,
    labels: jax.Array,
    tx: optax.GradientTransformationExtraArgs,
) -> tuple[TrainState, Metrics]:
    """Takes one step of the state's classifier on the cross-entropy.

    Args:
        state: train state with the classifier as `params["linear"]`.
        features: this device's features [b, f], constants.
        labels: this device's labels [b]; images with label -1 (unknown) are ignored.
        tx: optimizer of the classifier.

    Returns:
        The new state, and the metrics `loss` in nats and `top1` in percent before the
        step. They are means over the labeled images of the global batch, and 0 if there
        are none.
    """

    def loss_fn(params):
        loss, metrics = classification_loss(logits(params[LINEAR], features), labels)
        return loss, (state, metrics)

    state, metrics, _ = gradient_step(
        state, loss_fn, trains=(LINEAR,), tx=tx, opt_state=LINEAR
    )
    return state, metrics


def classification_loss(
    scores: jax.Array, labels: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Computes the mean cross-entropy over the labeled images of the global batch.

    Args:
        scores: this device's class scores [b, c].
        labels: this device's labels [b]; images with label -1 (unknown) are ignored.

    Returns:
        The loss, for a gradient that is averaged over devices, and the metrics `loss`
        in nats and `top1` in percent; they are 0 if no image has a label.
    """
    losses = cross_entropy(scores, labels)
    right = (scores.argmax(-1) == labels).astype(jnp.float32)
    known = (labels >= 0).astype(jnp.float32)
    rows = jnp.stack([losses * known, right, known])
    loss, right, count = gather(rows, axis=1).sum(1)
    count = jnp.maximum(count, 1.0)
    loss = as_mean_over_devices(loss / count)
    return loss, {"loss": loss, "top1": 100 * right / count}


@dataclasses.dataclass(frozen=True)
class OnlineLinear:
    """Trains a base method and, on its features, an online linear classifier.

    In each step, the classifier takes one step on the cross-entropy of the first view's
    backbone features, at unit length and with stopped gradients. It is initialized to
    zero, so no random numbers are drawn for it. Images without a label are ignored.

    Attributes:
        base: the method that trains the encoder; the encoder must sow its features.
        num_classes: number of classes of the labels.
        tx: optimizer of the classifier.
    """

    base: BaseMethod
    num_classes: int
    tx: optax.GradientTransformationExtraArgs

    @property
    def encoder(self) -> nn.Module:
        """The encoder of the base method."""
        return self.base.encoder

    @property
    def pair_weights(self) -> np.ndarray:
        """The pair weights of the base method."""
        return self.base.pair_weights

    @property
    def running_stats(self) -> str:
        """Which views update the running statistics in the base method."""
        return self.base.running_stats

    def update_momentum_encoder(self, state: TrainState) -> TrainState:
        """Updates the momentum encoder of the base method."""
        return self.base.update_momentum_encoder(state)

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the base's state with the classifier and its optimizer state."""
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
        extra_loss: ExtraLoss | None = None,
        observe: Observer = no_observer,
    ):
        """Updates the base method and, with the same features, the classifier."""

        def train_too(state: TrainState, forward: Forward):
            state, metrics = observe(state, forward)
            features = unit_features(forward.features)
            state, linear = train_classifier(state, features, batch.labels, self.tx)
            linear = {f"linear/{name}": value for name, value in linear.items()}
            return state, metrics | linear

        return self.base.update(state, batch, key, extra_loss, train_too)
