"""MoCo: a momentum encoder computes the keys, and a queue stores them."""

import dataclasses

import chex
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
    Forward,
    Targets,
    TrainState,
)
from logo_jax.methods.gradient import GradientMethod
from logo_jax.methods.multi_crop import encode, encode_views, split_views
from logo_jax.methods.pairing import pair_loss, predicting_views, target_views
from logo_jax.methods.shuffle_bn import encode_shuffled
from logo_jax.parallel.collectives import gather, global_size


@dataclasses.dataclass(frozen=True)
class MoCo(GradientMethod):
    """MoCo, asymmetric or symmetric depending on its pairing.

    Attributes:
        encoder: network from images to embeddings [..., d]; the key encoder is its
            moving average.
        tx: optimizer of the query encoder.
        pair_weights: weight of each directed pair (query view, key view), [s, t].
        queue_size: number of keys in the queue, >= 1.
        momentum: fraction of the key encoder's parameters that a step keeps, in [0, 1].
            The key encoder has its own running statistics.
        temperature: divides similarities in the softmax, > 0.
        shuffle: whether the images of the keys are permuted, on and over devices,
            before the key encoder, so that its batch-norm groups differ from those of
            the queries.
        encode_unused_views: whether views that no pair uses are encoded too, and the
            keys of all global views are enqueued, as in the released code. Only running
            statistics and the queue depend on it.
        running_stats: "all" views update the query encoder's running statistics, or
            only "globals".

    Raises:
        ValueError: if a number is out of its range.

    Source: He et al. 2020, https://arxiv.org/abs/1911.05722, Algorithm 1;
        facebookresearch/moco@moco/builder.py.
    """

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    queue_size: int
    momentum: float
    temperature: float
    shuffle: bool
    encode_unused_views: bool
    running_stats: str = "all"

    trains = (ENCODER,)
    separable = True

    def __post_init__(self):
        if self.queue_size < 1:
            raise ValueError(f"queue_size={self.queue_size} must be > 0; try 4096")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum={self.momentum} must be in [0, 1]; try 0.999")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be > 0; try 0.1")

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step, with a queue of random unit keys."""
        self._check_queue(*batch.global_crops.shape[:2])
        encoder_key, queue_key = jax.random.split(key)
        view = batch.global_crops[:1, 0]
        z, encoder = self.encoder.init_with_output(encoder_key, view, train=False)
        params, stats = encoder["params"], encoder.get("batch_stats", {})
        queue = jax.random.normal(queue_key, (self.queue_size, z.shape[-1]))
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

    def update_momentum_encoder(self, state: TrainState) -> TrainState:
        """Moves the key encoder toward the query encoder, before keys are computed."""
        moved = optax.incremental_update(
            state.params[ENCODER], state.memory[KEY_ENCODER], 1 - self.momentum
        )
        return state.replace(memory=state.memory | {KEY_ENCODER: moved})

    def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Targets:
        """Returns the keys, and the queue with the keys of global views."""
        views, num_global = split_views(batch), batch.global_crops.shape[1]
        _, key_views = self._query_and_key_views()
        keys, stats = self._encode_keys(state, [views[t] for t in key_views], key)
        enqueued = keys[: len(self.enqueued_views(num_global))]
        # Keys enqueued before this step, as a fraction of the queue; their number may
        # be too large for an int32.
        share = global_size(enqueued[..., 0].size) / self.queue_size
        filled = state.step.astype(jnp.float32) * share
        return Targets(
            embeddings=keys,
            batch_stats={KEY_ENCODER: stats},
            memory=enqueue(state.memory, enqueued),
            metrics={"health/queue_fill": jnp.minimum(filled, 1.0)},
        )

    def loss(self, state: TrainState, batch: Batch, targets: jax.Array):
        """Returns weighted InfoNCE of queries against other views' keys and the queue.

        The queue is that of the state, without this step's keys.
        """
        query_views, key_views = self._query_and_key_views()
        encoded = encode_views(
            self.encoder,
            state.variables(ENCODER),
            batch,
            query_views,
            self.running_stats,
        )
        # Local views are not targets; they have keys only with encode_unused_views.
        key_views = [t for t in key_views if t < self.pair_weights.shape[1]]
        losses = info_nce(
            l2_normalize(encoded.embeddings),
            targets[: len(key_views)],
            state.memory["queue"],
            temperature=self.temperature,
        )
        weights = self.pair_weights[np.ix_(query_views, key_views)]
        loss, metrics = pair_loss(losses, weights, batch.global_crops.shape[1])
        return loss, Forward(
            embeddings=encoded.embeddings,
            batch_stats={ENCODER: encoded.batch_stats},
            memory={},
            metrics=metrics,
            features=encoded.features,
        )

    def _query_and_key_views(self):
        """Returns the views that become queries and the views that become keys."""
        if self.encode_unused_views:
            every = list(range(len(self.pair_weights)))
            return every, every
        return predicting_views(self.pair_weights), target_views(self.pair_weights)

    def _encode_keys(self, state, views, prng_key):
        """Returns unit keys [t, b, d] and the key encoder's new statistics."""

        def encode_keys(views):
            encoded = encode(self.encoder, state.variables(KEY_ENCODER), views)
            return encoded.embeddings, encoded.batch_stats

        if self.shuffle:
            keys, stats = encode_shuffled(encode_keys, views, prng_key)
        else:
            keys, stats = encode_keys(views)
        return l2_normalize(keys), stats

    def _check_queue(self, batch_size, num_global):
        """Raises an error unless the queue holds a whole number of steps' keys."""
        count = len(self.enqueued_views(num_global))
        added = count * batch_size
        if self.queue_size % added:
            raise ValueError(
                f"queue_size={self.queue_size} must be a multiple of the {added} keys "
                f"added per step ({count} crops x batch {batch_size}); "
                f"use {max(1, round(self.queue_size / added)) * added}"
            )

    def enqueued_views(self, num_global: int) -> list[int]:
        """Returns the views whose keys are stored: the encoded global views."""
        _, key_views = self._query_and_key_views()
        return [t for t in key_views if t < num_global]


def enqueue(memory: dict, keys: jax.Array) -> dict:
    """Returns the queue and its cursor after keys have replaced the oldest entries.

    Args:
        memory: dict with "queue" [k, d], the stored keys, and "cursor" [], the row of
            the oldest key, which is replaced next.
        keys: this device's keys, [t, b, d]. The keys of all devices are stored, view
            after view; their number must divide k.
    """
    size, dim = memory["queue"].shape
    rows = gather(keys, axis=1).reshape(-1, dim)
    chex.assert_is_divisible(size, len(rows))
    cursor = memory["cursor"]
    queue = jax.lax.dynamic_update_slice_in_dim(memory["queue"], rows, cursor, axis=0)
    return {"queue": queue, "cursor": (cursor + len(rows)) % size}
