"""MoCo: a momentum encoder makes the keys, a queue remembers them."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax.losses import info_nce, l2_normalize
from logo_jax.methods.base import (
    ENCODER,
    KEY_ENCODER,
    Batch,
    ExtraLoss,
    Forward,
    Params,
    TrainState,
)
from logo_jax.methods.gradient import base_update, no_extra_loss
from logo_jax.methods.multi_crop import encode_crops, encode_views, split_views
from logo_jax.methods.pairing import pair_metrics, predicting_views, target_views
from logo_jax.methods.shuffle_bn import encode_shuffled
from logo_jax.parallel.collectives import gather, global_size


@dataclasses.dataclass(frozen=True)
class MoCo:
    """MoCo, asymmetric or symmetric by its pairing.

    Attributes:
        encoder: images to embeddings [.., d]; the key encoder is a slow copy.
        tx: optimiser of the query encoder.
        pair_weights: weight of each directed pair (query view, key view), [s, t].
        queue_size: keys remembered.
        momentum: of the key encoder's parameters; its running statistics are its own.
        temperature: of the softmax.
        shuffle: whether keys' images change places, on and over devices, before the key
            encoder sees them, so that its batch norm groups differ from the queries'.
        encode_unused_views: also encode views that no pair uses, and enqueue the keys
            of all global ones, as the released code does. Only running statistics and
            the queue depend on it.
        stats_from_globals: local crops leave the query encoder's running statistics
            alone.

    Source: He et al. 2020, https://arxiv.org/abs/1911.05722, Algorithm 1;
        facebookresearch/moco@moco/builder.py.
    """

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    queue_size: int = 4096
    momentum: float = 0.999
    temperature: float = 0.07
    shuffle: bool = False
    encode_unused_views: bool = False
    stats_from_globals: bool = False

    trains = (ENCODER,)

    def __post_init__(self):
        if self.queue_size < 1:
            raise ValueError(f"queue_size={self.queue_size} must be > 0; try 4096")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum={self.momentum} must lie in [0, 1]; try 0.999")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be > 0; try 0.1")

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """State before the first step; the queue holds random unit vectors."""
        encoder_key, queue_key = jax.random.split(key)
        view = batch.global_crops[:1, 0]
        embedding, encoder = self.encoder.init_with_output(
            encoder_key, view, train=False
        )
        self._check_queue(*batch.global_crops.shape[:2])
        params, stats = encoder["params"], encoder.get("batch_stats", {})
        queue = jax.random.normal(queue_key, (self.queue_size, embedding.shape[-1]))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params={ENCODER: params},
            batch_stats={ENCODER: stats, KEY_ENCODER: stats},
            opt_states={"base": self.tx.init({ENCODER: params})},
            memory={
                KEY_ENCODER: params,
                "queue": l2_normalize(queue),
                "cursor": jnp.zeros((), jnp.int32),
            },
        )

    def update(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        term: ExtraLoss = no_extra_loss,
    ):
        """Moves the key encoder, takes a gradient step, enqueues the keys."""
        state, metrics, grad_norms = base_update(self, state, batch, key, term)
        return state, metrics | {"grad_norm": grad_norms[ENCODER]}

    def prepare(self, state: TrainState) -> TrainState:
        """The key encoder moves towards the query encoder, before keys are made."""
        moved = optax.incremental_update(
            state.params[ENCODER], state.memory[KEY_ENCODER], 1 - self.momentum
        )
        return state.replace(memory=state.memory | {KEY_ENCODER: moved})

    def loss(
        self, params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Forward]:
        """Weighted InfoNCE of queries against other views' keys and the queue."""
        views = split_views(batch)
        num_global = batch.global_crops.shape[1]
        rows, columns = self._encoded(len(views))
        embeddings, query_stats, features = encode_crops(
            self.encoder,
            params[ENCODER],
            state.batch_stats[ENCODER],
            batch,
            rows,
            stats_from_globals=self.stats_from_globals,
        )
        keys, key_stats = self._encode_keys(state, [views[t] for t in columns], key)
        queries = l2_normalize(embeddings)
        columns = [t for t in columns if t < self.pair_weights.shape[1]]
        losses = info_nce(
            queries,
            keys[: len(columns)],
            state.memory["queue"],
            temperature=self.temperature,
        ).mean(-1)
        weights = self.pair_weights[np.ix_(rows, columns)]
        enqueued = keys[: len(self._enqueued(num_global))]
        filled = state.step * global_size(enqueued[..., 0].size) / self.queue_size
        return jnp.sum(weights * losses), Forward(
            embeddings=embeddings,
            batch_stats={ENCODER: query_stats, KEY_ENCODER: key_stats},
            memory=enqueue(state.memory, enqueued),
            metrics=pair_metrics(weights, losses, num_global)
            | {"health/queue_fill": jnp.minimum(filled, 1.0)},
            features=features,
        )

    def _encoded(self, num_views):
        """Views that become queries, and views that become keys."""
        if self.encode_unused_views:
            return list(range(num_views)), list(range(num_views))
        return predicting_views(self.pair_weights), target_views(self.pair_weights)

    def _encode_keys(self, state, views, prng_key):
        """Unit keys [t, b, d], and the key encoder's new statistics."""

        def encode(views):
            return encode_views(
                self.encoder,
                state.memory[KEY_ENCODER],
                state.batch_stats[KEY_ENCODER],
                views,
            )

        keys, stats = (
            encode_shuffled(encode, views, prng_key) if self.shuffle else encode(views)
        )
        return l2_normalize(keys), stats

    def _check_queue(self, batch_size, num_global):
        """Raises where a step's keys do not fit the queue a whole number of times."""
        count = len(self._enqueued(num_global))
        added = count * batch_size
        if self.queue_size % added:
            raise ValueError(
                f"queue_size={self.queue_size} must be a multiple of the {added} keys "
                f"added per step ({count} crops x batch {batch_size}); "
                f"use {max(1, round(self.queue_size / added)) * added}"
            )

    def _enqueued(self, num_global):
        """Views whose keys are remembered: the global ones among those encoded."""
        _, columns = self._encoded(len(self.pair_weights))
        return [t for t in columns if t < num_global]


def enqueue(memory: dict, keys: jax.Array) -> dict:
    """The queue and cursor after keys overwrote the oldest entries.

    Args:
        memory: "queue" [k, d] and "cursor" [].
        keys: this device's [t, b, d]; all devices' keys enter, view after view. Their
            number must divide k.
    """
    size, dim = memory["queue"].shape
    rows = gather(keys, axis=1).reshape(-1, dim)
    cursor = memory["cursor"]
    queue = jax.lax.dynamic_update_slice_in_dim(memory["queue"], rows, cursor, axis=0)
    return {"queue": queue, "cursor": (cursor + len(rows)) % size}
