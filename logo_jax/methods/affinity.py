"""Similarity of two local crops of an image, which LoGo's repulsion minimizes.

The similarity is the cosine of the crops' embeddings or the score of a regressor. In
each step the regressor learns to distinguish pairs of crops of one image from pairs of
crops of two images.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from logo_jax.losses import (
    cosine_affinity,
    different_image,
    l2_normalize,
)
from logo_jax.methods import diagnostics
from logo_jax.methods.base import REGRESSOR, Metrics, TrainState
from logo_jax.methods.gradient import gradient_step
from logo_jax.methods.multi_crop import encode
from logo_jax.parallel.collectives import (
    as_mean_over_devices,
    gather,
    global_size,
    local_rows,
    reverse_batch,
    roll_batch,
)

NO_NOISE = (0.0, 0.0)  # of the two places in a pair
CHOICES = {
    "noise_on": ("positives", "both", "none"),
    "negatives": ("flip", "roll"),
    "regressor_norm": ("joint", "separate", "eval", "layer", "none"),
}


class Affinity(Protocol):
    """A measure of the similarity of two crops, and how it is learned."""

    def init(self, state: TrainState, key: jax.Array, dim: int) -> TrainState:
        """Returns the state with parameters for embeddings of size dim."""
        ...

    def learn(
        self, state: TrainState, embeddings: jax.Array, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Returns the state after one step on local embeddings [l, b, d]."""
        ...

    def repulsion(
        self, state: TrainState, embeddings: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[TrainState, Metrics]]:
        """Returns the mean similarity of pairs of crops of one image (LoGo, Eq. 5).

        The encoder minimizes it. The new state and metrics are auxiliary values. `key`
        is the random key that `learn` got in this step.
        """
        ...


@dataclasses.dataclass(frozen=True)
class CosineAffinity:
    """Cosine similarity, with which Figure 2 of the paper compares the regressor."""

    def init(self, state: TrainState, key: jax.Array, dim: int) -> TrainState:
        """Returns the state itself: there is nothing to learn."""
        del key, dim
        return state

    def learn(self, state: TrainState, embeddings: jax.Array, key: jax.Array):
        """Returns the unchanged state and the metric `health/affinity_gap`.

        The metric is the mean cosine of pairs of crops of one image, minus that of
        pairs of crops of two images.
        """
        del key
        first, second = halves(jax.lax.stop_gradient(embeddings))
        same = cosine_affinity(first, second).mean()
        different = cosine_affinity(first, reverse_batch(second, axis=1)).mean()
        return state, {"health/affinity_gap": same - different}

    def repulsion(self, state: TrainState, embeddings: jax.Array, key: jax.Array):
        """Returns the mean cosine of the pairs."""
        del key
        loss = cosine_affinity(*halves(embeddings)).mean()
        return loss, (state, {"repulsion": loss})


@dataclasses.dataclass(frozen=True)
class LearnedAffinity:
    """A regressor's score for the concatenation of two local embeddings.

    Attributes:
        regressor: network from concatenated pairs [..., 2d] to scores [...].
        tx: optimizer of the regressor.
        loss: function from scores of pairs of one image and scores of pairs of two
            images to a scalar.
        trained: whether the regressor learns; False keeps its random initialization, as
            a control.
        noise: norm of the noise, whatever the norm of the embeddings.
        noise_on: which pairs get noise: "positives" (as in the released code), "both"
            or "none".
        negatives: which image supplies the second crop of a negative pair. "flip": the
            image at the same place in the reversed global batch (the released code
            reverses each device's batch); "roll": the image a random number of places
            away, not 0.
        regressor_norm: which pairs the regressor's batch norm normalizes together,
            within its groups. "separate": each kind and order of pairs alone, as in the
            released code. "joint": positives with negatives, and the repelled pairs
            with negatives. "eval": "separate" in training; the repelled pairs use
            running statistics. With "layer" (layer norm) or "none" the regressor has no
            batch norm.
        both_orders: whether the pairs are repelled in both orders or in one.
        normalize: whether the regressor's inputs are scaled to unit length.

    Raises:
        ValueError: if an option has an unknown value.

    Source: LoGo, Eqs. 5 and 6, https://arxiv.org/abs/2203.17205;
        ztt1024/LoGo-SSL@trainers.py.
    """

    regressor: nn.Module
    tx: optax.GradientTransformationExtraArgs
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    trained: bool
    noise: float
    noise_on: str
    negatives: str
    regressor_norm: str
    both_orders: bool
    normalize: bool

    def __post_init__(self):
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}={value!r} must be one of {choices}")

    def init(self, state: TrainState, key: jax.Array, dim: int) -> TrainState:
        """Returns the state with the regressor's parameters and optimizer state."""
        regressor = self.regressor.init(key, jnp.zeros((1, 2 * dim)), train=False)
        params = {REGRESSOR: regressor["params"]}
        stats = {REGRESSOR: regressor.get("batch_stats", {})}
        opt_states = {"regressor": self.tx.init(params)} if self.trained else {}
        return state.replace(
            params=state.params | params,
            batch_stats=state.batch_stats | stats,
            opt_states=state.opt_states | opt_states,
        )

    def learn(
        self, state: TrainState, embeddings: jax.Array, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Trains the regressor by one step, to distinguish two kinds of pairs of crops.

        The kinds are pairs of crops of one image and of two images (LoGo, Eq. 6).

        Args:
            state: the train state.
            embeddings: this device's embeddings of local crops, [l, b, d].
            key: random key of noise and negatives, the same on all devices.

        Returns:
            The new state and the metrics; without metrics if the regressor does not
            learn.
        """
        if not self.trained:
            return state, {}
        first, second = self._members(embeddings)
        noise = self.draw_noise(key, (2, *first.shape))
        positives = in_both_orders(first, second, noise)
        negatives = self._negatives(
            first, second, key, noise if self.noise_on == "both" else NO_NOISE
        )

        def loss_fn(params):
            scores, after = self._score(
                state, params[REGRESSOR], jnp.concatenate([positives, negatives])
            )
            same, different = jnp.split(gather(scores, axis=1), 2)
            loss = as_mean_over_devices(self.loss(same, different))
            metrics = {
                "regressor_loss": loss,
                "score_same": same.mean(),
                "score_different": different.mean(),
                "health/affinity_gap": same.mean() - different.mean(),
            }
            return loss, (after, metrics)

        state, metrics, _ = gradient_step(
            state, loss_fn, trains=(REGRESSOR,), tx=self.tx, opt_state="regressor"
        )
        return state, metrics

    def repulsion(self, state: TrainState, embeddings: jax.Array, key: jax.Array):
        """Returns the repulsion: the loss of scoring pairs of crops as of two images.

        It is the mean of `different_image` of the regressor's scores, over the pairs of
        local crops of each image.
        """
        first, second = self._members(embeddings)
        pairs = (
            in_both_orders(first, second) if self.both_orders else pair(first, second)
        )
        scores, state = self._score_repelled(state, pairs, first, second, key)
        loss = different_image(scores).mean()
        dead = diagnostics.saturation(scores)
        return loss, (state, {"repulsion": loss, "health/saturation": dead})

    def scores(
        self, state: TrainState, first: jax.Array, second: jax.Array
    ) -> jax.Array:
        """Returns scores [...] of pairs of embeddings [..., d], in this order.

        Running statistics are used and not updated; no noise is added.
        """
        if self.normalize:
            first, second = l2_normalize(first), l2_normalize(second)
        return self._evaluate(state, pair(first, second))

    def draw_noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Returns this device's noise [2, p, b, d], for both places in each pair.

        The noise is drawn for the global batch, so that it does not depend on the
        devices.
        """
        if self.noise_on == "none":
            return jnp.zeros(shape)
        two, pairs, batch, dim = shape
        noise = jax.random.normal(key, (two, pairs, global_size(batch), dim))
        return local_rows(self.noise / dim**0.5 * noise, axis=2)

    def _members(self, embeddings):
        """Returns first and second members [p, b, d] of the pairs of local crops."""
        return halves(l2_normalize(embeddings) if self.normalize else embeddings)

    def _negatives(self, first, second, key, noise=NO_NOISE):
        """Returns pairs [2p, b, 2d] whose members are crops of two images."""
        if self.negatives == "flip":
            return in_both_orders(first, reverse_batch(second, axis=1), noise)
        shift_key = jax.random.fold_in(key, 1)
        shift = jax.random.randint(shift_key, (), 1, global_size(first.shape[1]))
        return in_both_orders(first, roll_batch(second, shift, axis=1), noise)

    def _score_repelled(self, state, pairs, first, second, key):
        """Returns scores of the repelled pairs, and the state with new statistics."""
        params = state.params[REGRESSOR]
        if self.regressor_norm == "eval":
            return self._evaluate(state, pairs), state
        if self.regressor_norm != "joint":
            return self._score(state, params, pairs)
        together = jnp.concatenate([pairs, self._negatives(first, second, key)])
        scores, state = self._score(state, params, together)
        return scores[: len(pairs)], state

    def _evaluate(self, state, pairs):
        """Returns scores [..] of pairs [.., 2d], using running statistics."""
        variables = state.variables(REGRESSOR)
        return cast(jax.Array, self.regressor.apply(variables, pairs, train=False))

    def _score(self, state, params, pairs):
        """Returns scores [n, b] of pairs [n, b, 2d], and the state after them."""
        joint = self.regressor_norm == "joint"
        if joint:  # sorted by image: each group of a split norm has every kind of pair
            pairs = jnp.swapaxes(pairs, 0, 1)
        batches = pairs.reshape(1, -1, pairs.shape[-1]) if joint else pairs
        variables = state.variables(REGRESSOR) | {"params": params}
        encoded = encode(self.regressor, variables, [*batches])
        scores = encoded.embeddings.reshape(pairs.shape[:-1])
        stats = state.batch_stats | {REGRESSOR: encoded.batch_stats}
        state = state.replace(batch_stats=stats)
        return scores.T if joint else scores, state


def halves(embeddings: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns first and second members [p, b, d] of pairs of local crops [2p, b, d].

    Crop i is paired with crop i + p.
    """
    half = embeddings.shape[0] // 2
    return embeddings[:half], embeddings[half:]


def pair(first: jax.Array, second: jax.Array) -> jax.Array:
    """Concatenates two embeddings [.., d] to an input [.., 2d] of the regressor."""
    return jnp.concatenate([first, second], axis=-1)


def in_both_orders(first, second, noise=NO_NOISE) -> jax.Array:
    """Returns pairs [2p, b, 2d]: first with second, then second with first.

    Noise depends on the place in the pair, not on the crop, as in the released code.
    """
    return jnp.concatenate(
        [
            pair(first + noise[0], second + noise[1]),
            pair(second + noise[0], first + noise[1]),
        ]
    )
