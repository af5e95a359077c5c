"""SimSiam: a predictor, a stop-gradient, nothing remembered."""

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
    Batch,
    ExtraLoss,
    Forward,
    Params,
    TrainState,
)
from logo_jax.methods.gradient import base_update, no_extra_loss
from logo_jax.methods.multi_crop import encode_pairs, encode_views
from logo_jax.methods.pairing import pair_metrics, used_weights


@dataclasses.dataclass(frozen=True)
class SimSiam:
    """SimSiam, for any pairing of views.

    Attributes:
        encoder: images to embeddings [.., d].
        predictor: embeddings to predictions of the same size.
        tx: optimiser of both.
        pair_weights: weight of each directed pair of views, [s, t].
        stats_from_globals: local crops leave the encoder's running statistics alone.

    Source: Chen & He 2021, https://arxiv.org/abs/2011.10566;
        facebookresearch/simsiam@simsiam/builder.py.
    """

    encoder: nn.Module
    predictor: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    stats_from_globals: bool = False

    trains = (ENCODER, PREDICTOR)

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """State before the first step."""
        encoder_key, predictor_key = jax.random.split(key)
        view = batch.global_crops[:1, 0]
        embedding, encoder = self.encoder.init_with_output(
            encoder_key, view, train=False
        )
        predictor = self.predictor.init(predictor_key, embedding, train=False)
        networks = {ENCODER: encoder, PREDICTOR: predictor}
        params = {name: network["params"] for name, network in networks.items()}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={
                name: network.get("batch_stats", {})
                for name, network in networks.items()
            },
            opt_states={"base": self.tx.init(params)},
            memory={},
        )

    def update(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        term: ExtraLoss = no_extra_loss,
    ):
        """One gradient step on the weighted pairs."""
        state, metrics, grad_norms = base_update(self, state, batch, key, term)
        return state, metrics | {"grad_norm": grad_norms[ENCODER]}

    def prepare(self, state: TrainState) -> TrainState:
        """The state itself: nothing moves before the gradient step."""
        return state

    def loss(
        self, params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Forward]:
        """Weighted negative cosine of predictions with other views' embeddings."""
        del key  # nothing random beyond the crops
        embeddings, targets, encoder_stats, features = encode_pairs(
            self.encoder,
            params[ENCODER],
            state.batch_stats[ENCODER],
            batch,
            self.pair_weights,
            stats_from_globals=self.stats_from_globals,
        )
        predictions, predictor_stats = encode_views(
            self.predictor,
            params[PREDICTOR],
            state.batch_stats[PREDICTOR],
            [*embeddings],
        )
        targets = jax.lax.stop_gradient(targets)
        losses = negative_cosine(
            *jnp.broadcast_arrays(predictions[:, None], targets[None])
        ).mean(-1)
        weights = used_weights(self.pair_weights)
        return jnp.sum(weights * losses), Forward(
            embeddings=embeddings,
            batch_stats={ENCODER: encoder_stats, PREDICTOR: predictor_stats},
            memory={},
            metrics=pair_metrics(weights, losses, batch.global_crops.shape[1]),
            features=features,
        )
