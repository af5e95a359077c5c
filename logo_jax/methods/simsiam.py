"""SimSiam: a predictor and a stop-gradient, without negatives or momentum encoder."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax.losses import negative_cosine
from logo_jax.methods.base import ENCODER, PREDICTOR, Batch, Forward, TrainState
from logo_jax.methods.gradient import GradientMethod
from logo_jax.methods.multi_crop import encode, encode_pairs
from logo_jax.methods.pairing import pair_loss, used_weights


@dataclasses.dataclass(frozen=True)
class SimSiam(GradientMethod):
    """SimSiam, for any pairing of views.

    Attributes:
        encoder: network from images to embeddings [..., d].
        predictor: network from embeddings to predictions of the same size.
        tx: optimizer of both.
        pair_weights: weight of each directed pair of views, [s, t].
        running_stats: "all" views update the encoder's running statistics, or only
            "globals".

    Source: Chen & He 2021, https://arxiv.org/abs/2011.10566;
        facebookresearch/simsiam@simsiam/builder.py.
    """

    encoder: nn.Module
    predictor: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    running_stats: str = "all"

    trains = (ENCODER, PREDICTOR)
    separable = True

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step."""
        keys = jax.random.split(key)
        view = batch.global_crops[:1, 0]
        z, encoder = self.encoder.init_with_output(keys[0], view, train=False)
        predictor = self.predictor.init(keys[1], z, train=False)
        params = {ENCODER: encoder["params"], PREDICTOR: predictor["params"]}
        stats = (network.get("batch_stats", {}) for network in (encoder, predictor))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=dict(zip(params, stats, strict=True)),
            opt_states={"base": self.tx.init(params)},
            memory={},
        )

    def loss(self, state: TrainState, batch: Batch, targets: None):
        """Returns the weighted negative cosine of predictions and embeddings."""
        del targets  # they are views of the encoder itself
        weights, variables = self.pair_weights, state.variables(ENCODER)
        encoded, paired = encode_pairs(
            self.encoder, variables, batch, weights, self.running_stats
        )
        z = encoded.embeddings
        predicted = encode(self.predictor, state.variables(PREDICTOR), [*z])
        paired = jax.lax.stop_gradient(paired)
        losses = negative_cosine(predicted.embeddings[:, None], paired[None])
        num_global = batch.global_crops.shape[1]
        loss, metrics = pair_loss(losses, used_weights(weights), num_global)
        stats = {ENCODER: encoded.batch_stats, PREDICTOR: predicted.batch_stats}
        return loss, Forward(z, stats, {}, metrics, encoded.features)
