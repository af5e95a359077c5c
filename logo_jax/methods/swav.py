"""SwAV: views predict each other's assignment to prototypes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax.losses import l2_normalize, sinkhorn, swapped_prediction
from logo_jax.methods.base import (
    ENCODER,
    PROTOTYPES,
    Batch,
    ExtraLoss,
    Forward,
    Params,
    TrainState,
)
from logo_jax.methods.gradient import base_update, no_extra_loss
from logo_jax.methods.multi_crop import encode_pairs
from logo_jax.methods.pairing import pair_metrics, target_views, used_weights
from logo_jax.parallel.collectives import gather, local_rows

POSITIVE = {"num_prototypes": 512, "temperature": 0.1, "epsilon": 0.05, "iterations": 3}


@dataclasses.dataclass(frozen=True)
class SwAV:
    """SwAV, for any pairing of views.

    Attributes:
        encoder: images to embeddings [.., d].
        tx: optimiser of encoder and prototypes; SwAV's leaves the prototypes alone at
            first (`frozen_steps` of `logo_jax.training.optim`).
        pair_weights: weight of each directed pair (view that predicts, view whose code
            is predicted), [s, t].
        num_prototypes: unit vectors [k, d] that images are assigned to.
        temperature: of the predictions' softmax.
        epsilon: of the codes, as in `sinkhorn`.
        iterations: of `sinkhorn`.
        queue_size: earlier images that share in the codes of a batch too small to fill
            the prototypes by itself; 0 for none.
        queue_start: step from which they do so, if the queue is full by then. It fills
            from the first step on; the released code's from its start on.
        stats_from_globals: local crops leave the encoder's running statistics alone.

    Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882;
        facebookresearch/swav@main_swav.py.
    """

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    num_prototypes: int
    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    queue_size: int = 0
    queue_start: int = 0
    stats_from_globals: bool = False

    trains = (ENCODER, PROTOTYPES)

    def __post_init__(self):
        for name, usual in POSITIVE.items():
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name}={value} must be positive; try {usual}")
        if self.queue_size < 0:
            raise ValueError(f"queue_size={self.queue_size} must be >= 0; 0 for none")
        if self.queue_start and not self.queue_size:
            raise ValueError(
                f"queue_start={self.queue_start} needs a queue; set queue_size, or let "
                "the queue start at 0"
            )

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """State before the first step; an empty queue holds zeros."""
        self._check_queue(len(batch.global_crops))
        encoder_key, prototypes_key = jax.random.split(key)
        view = batch.global_crops[:1, 0]
        embedding, encoder = self.encoder.init_with_output(
            encoder_key, view, train=False
        )
        dim = embedding.shape[-1]
        kernel = jax.random.normal(prototypes_key, (self.num_prototypes, dim))
        params = {
            ENCODER: encoder["params"],
            PROTOTYPES: {"kernel": l2_normalize(kernel)},
        }
        shape = (len(target_views(self.pair_weights)), self.queue_size, dim)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={ENCODER: encoder.get("batch_stats", {})},
            opt_states={"base": self.tx.init(params)},
            memory={"queue": jnp.zeros(shape)} if self.queue_size else {},
        )

    def update(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        term: ExtraLoss = no_extra_loss,
    ):
        """Brings prototypes to unit length, then takes a gradient step."""
        state, metrics, grad_norms = base_update(self, state, batch, key, term)
        return state, metrics | {"grad_norm": grad_norms[ENCODER]}

    def prepare(self, state: TrainState) -> TrainState:
        """The prototypes at unit length, from which the last step took them."""
        prototypes = jax.tree.map(l2_normalize, state.params[PROTOTYPES])
        return state.replace(params=state.params | {PROTOTYPES: prototypes})

    def loss(
        self, params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Forward]:
        """Weighted cross-entropy of views' predictions of other views' codes."""
        del key  # nothing random beyond the crops
        embeddings, targets, stats, features = encode_pairs(
            self.encoder,
            params[ENCODER],
            state.batch_stats[ENCODER],
            batch,
            self.pair_weights,
            stats_from_globals=self.stats_from_globals,
        )
        prototypes = params[PROTOTYPES]["kernel"]
        targets = gather(jax.lax.stop_gradient(l2_normalize(targets)), axis=1)
        codes = self._codes(state, targets, jax.lax.stop_gradient(prototypes))
        codes = local_rows(codes, axis=1)
        losses = swapped_prediction(
            codes,
            similarity(l2_normalize(embeddings), prototypes),
            temperature=self.temperature,
        ).mean(-1)
        weights = used_weights(self.pair_weights)
        metrics = pair_metrics(weights, losses, batch.global_crops.shape[1])
        return jnp.sum(weights * losses), Forward(
            embeddings=embeddings,
            batch_stats={ENCODER: stats},
            memory=self._remember(state.memory, targets),
            metrics=metrics | {"code_entropy": entropy(codes).mean()},
            features=features,
        )

    def _codes(self, state, targets, prototypes):
        """Codes [t, n, k] of all devices' embeddings [t, n, d], of each view apart."""

        def share_out(z):
            scores = similarity(z, prototypes)
            return jax.vmap(
                lambda view: sinkhorn(
                    view, epsilon=self.epsilon, iterations=self.iterations
                )
            )(scores)

        if not self.queue_size:
            return share_out(targets)
        queue = state.memory["queue"]
        # newest come first: the last place is zero until the queue is full
        ready = (state.step >= self.queue_start) & queue[:, -1].any()
        together = jnp.concatenate([targets, queue], axis=1)
        return jax.lax.cond(
            ready,
            lambda: share_out(together)[:, : targets.shape[1]],
            lambda: share_out(targets),
        )

    def _remember(self, memory, targets):
        """The queue with all devices' embeddings [t, n, d] in place of the oldest."""
        if not self.queue_size:
            return {}
        queue = jnp.concatenate([targets, memory["queue"]], axis=1)
        return {"queue": queue[:, : self.queue_size]}

    def _check_queue(self, batch_size):
        """Raises where a queue does not hold a whole number of batches."""
        if self.queue_size % batch_size:
            usual = max(1, round(self.queue_size / batch_size)) * batch_size
            raise ValueError(
                f"queue_size={self.queue_size} must be a multiple of the {batch_size} "
                f"images that enter per step; use {usual}, or 0 for no queue"
            )


def similarity(embeddings: jax.Array, prototypes: jax.Array) -> jax.Array:
    """Scores [v, b, k] of embeddings [v, b, d] with prototypes [k, d]."""
    return jnp.einsum("vbd,kd->vbk", embeddings, prototypes)


def entropy(codes: jax.Array) -> jax.Array:
    """Entropy [..] of distributions [.., k], in nats.

    Where all embeddings have become one, all codes are even and have log(k).
    """
    return jax.scipy.special.entr(codes).sum(-1)
