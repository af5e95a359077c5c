"""BYOL: a predictor regresses the embeddings of a moving average of the encoder."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax.losses import negative_cosine
from logo_jax.methods.base import (
    ENCODER,
    PREDICTOR,
    TARGET_ENCODER,
    Batch,
    Forward,
    Targets,
    TrainState,
)
from logo_jax.methods.gradient import GradientMethod
from logo_jax.methods.multi_crop import encode, encode_views
from logo_jax.methods.pairing import (
    pair_loss,
    predicting_views,
    target_views,
    used_weights,
)
from logo_jax.methods.simsiam import SimSiam


@dataclasses.dataclass(frozen=True)
class BYOL(GradientMethod):
    """BYOL, for any pairing of views.

    The loss is the negative cosine similarity of prediction and target, which is half
    of BYOL's squared distance of unit vectors, minus one. It is averaged over pairs;
    BYOL sums over pairs.

    Attributes:
        encoder: network from images to embeddings [..., d]; the target encoder is its
            moving average.
        predictor: network from embeddings to predictions of the same size.
        tx: optimizer of both.
        pair_weights: weight of each directed pair of views, [s, t].
        momentum: function from the step to the fraction of the target encoder's
            parameters that is kept, in [0, 1]. The target encoder has its own running
            statistics.
        running_stats: "all" views update the encoder's running statistics, or only
            "globals".

    Source: Grill et al. 2020, https://arxiv.org/abs/2006.07733;
        google-deepmind/deepmind-research@byol/byol_experiment.py.
    """

    encoder: nn.Module
    predictor: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    momentum: optax.Schedule
    running_stats: str = "all"

    trains = (ENCODER, PREDICTOR)
    separable = True

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step; the target is a copy of the encoder.

        BYOL's released code initializes the target encoder at random, with no visible
        effect.
        """
        simsiam = SimSiam(self.encoder, self.predictor, self.tx, self.pair_weights)
        state = simsiam.init(key, batch)
        stats = state.batch_stats
        return state.replace(
            batch_stats=stats | {TARGET_ENCODER: stats[ENCODER]},
            memory={TARGET_ENCODER: state.params[ENCODER]},
        )

    def update_momentum_encoder(self, state: TrainState) -> TrainState:
        """Moves the target encoder toward the encoder, before targets are computed."""
        # BYOL moves the target encoder at the end of a step. Moving it before the next
        # step, with the earlier step's momentum, gives the same values. Before the
        # first step there is no update to follow.
        momentum = jnp.where(state.step > 0, self.momentum(state.step - 1), 1.0)
        moved = optax.incremental_update(
            state.params[ENCODER], state.memory[TARGET_ENCODER], 1 - momentum
        )
        return state.replace(memory=state.memory | {TARGET_ENCODER: moved})

    def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Targets:
        """Returns the target encoder's embeddings."""
        del key  # only the crops are random
        views = target_views(self.pair_weights)
        variables = state.variables(TARGET_ENCODER)
        encoded = encode_views(self.encoder, variables, batch, views)
        stats = {TARGET_ENCODER: encoded.batch_stats}
        return Targets(encoded.embeddings, stats, {}, {})

    def loss(self, state: TrainState, batch: Batch, targets: jax.Array):
        """Returns the weighted negative cosine of predictions and targets."""
        weights = self.pair_weights
        encoded = encode_views(
            self.encoder,
            state.variables(ENCODER),
            batch,
            predicting_views(weights),
            self.running_stats,
        )
        z = encoded.embeddings
        predicted = encode(self.predictor, state.variables(PREDICTOR), [*z])
        losses = negative_cosine(predicted.embeddings[:, None], targets[None])
        num_global = batch.global_crops.shape[1]
        loss, metrics = pair_loss(losses, used_weights(weights), num_global)
        stats = {ENCODER: encoded.batch_stats, PREDICTOR: predicted.batch_stats}
        return loss, Forward(z, stats, {}, metrics, encoded.features)
