"""BYOL: a predictor chases the embeddings of a slow copy of the encoder."""

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
    ExtraLoss,
    Forward,
    Params,
    TrainState,
)
from logo_jax.methods.gradient import base_update, no_extra_loss
from logo_jax.methods.multi_crop import encode_crops, encode_views
from logo_jax.methods.pairing import (
    pair_metrics,
    predicting_views,
    target_views,
    used_weights,
)
from logo_jax.methods.simsiam import SimSiam


@dataclasses.dataclass(frozen=True)
class BYOL:
    """BYOL, for any pairing of views.

    Its loss is the negative cosine of prediction and target: half of BYOL's squared
    distance of unit vectors, minus one; and the mean over pairs where BYOL has the sum.

    Attributes:
        encoder: images to embeddings [.., d]; the target encoder is a slow copy.
        predictor: embeddings to predictions of the same size.
        tx: optimiser of both.
        pair_weights: weight of each directed pair of views, [s, t].
        momentum: from a step to the share that the target encoder's parameters keep
            after it, in [0, 1]; its running statistics are its own.
        stats_from_globals: local crops leave the encoder's running statistics alone.

    Source: Grill et al. 2020, https://arxiv.org/abs/2006.07733;
        google-deepmind/deepmind-research@byol/byol_experiment.py.
    """

    encoder: nn.Module
    predictor: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    momentum: optax.Schedule
    stats_from_globals: bool = False

    trains = (ENCODER, PREDICTOR)

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """SimSiam's state before the first step, and a target equal to the encoder.

        The released code draws the target's parameters anew, and sees no difference.
        """
        simsiam = SimSiam(self.encoder, self.predictor, self.tx, self.pair_weights)
        state = simsiam.init(key, batch)
        stats = state.batch_stats
        return state.replace(
            batch_stats=stats | {TARGET_ENCODER: stats[ENCODER]},
            memory={TARGET_ENCODER: state.params[ENCODER]},
        )

    def update(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        term: ExtraLoss = no_extra_loss,
    ):
        """Moves the target encoder, then takes a gradient step."""
        state, metrics, grad_norms = base_update(self, state, batch, key, term)
        return state, metrics | {"grad_norm": grad_norms[ENCODER]}

    def prepare(self, state: TrainState) -> TrainState:
        """The target encoder moves towards the encoder, before targets are made."""
        # BYOL moves it at the end of a step: the same values, with that step's
        # momentum; before the first step there is none to take in
        momentum = jnp.where(state.step > 0, self.momentum(state.step - 1), 1.0)
        moved = optax.incremental_update(
            state.params[ENCODER], state.memory[TARGET_ENCODER], 1 - momentum
        )
        return state.replace(memory=state.memory | {TARGET_ENCODER: moved})

    def loss(
        self, params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Forward]:
        """Weighted negative cosine of predictions with other views' targets."""
        del key  # nothing random beyond the crops
        stats = state.batch_stats
        embeddings, encoder_stats, features = encode_crops(
            self.encoder,
            params[ENCODER],
            stats[ENCODER],
            batch,
            predicting_views(self.pair_weights),
            stats_from_globals=self.stats_from_globals,
        )
        predictions, predictor_stats = encode_views(
            self.predictor, params[PREDICTOR], stats[PREDICTOR], [*embeddings]
        )
        targets, target_stats, _ = encode_crops(
            self.encoder,
            state.memory[TARGET_ENCODER],
            stats[TARGET_ENCODER],
            batch,
            target_views(self.pair_weights),
        )
        losses = negative_cosine(
            *jnp.broadcast_arrays(predictions[:, None], targets[None])
        ).mean(-1)
        weights = used_weights(self.pair_weights)
        return jnp.sum(weights * losses), Forward(
            embeddings=embeddings,
            batch_stats={
                ENCODER: encoder_stats,
                PREDICTOR: predictor_stats,
                TARGET_ENCODER: target_stats,
            },
            memory={},
            metrics=pair_metrics(weights, losses, batch.global_crops.shape[1]),
            features=features,
        )
