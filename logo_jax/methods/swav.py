"""SwAV: views predict each other's assignment to prototypes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from logo_jax.losses import l2_normalize, sinkhorn, swapped_prediction
from logo_jax.methods.base import ENCODER, PROTOTYPES, Batch, Forward, TrainState
from logo_jax.methods.gradient import GradientMethod
from logo_jax.methods.multi_crop import encode_pairs
from logo_jax.methods.pairing import pair_loss, target_views, used_weights
from logo_jax.parallel.collectives import gather, local_rows

# values that error messages suggest if a field is not positive
POSITIVE = {"num_prototypes": 512, "temperature": 0.1, "epsilon": 0.05, "iterations": 3}


@dataclasses.dataclass(frozen=True)
class SwAV(GradientMethod):
    """SwAV, for any pairing of views.

    Attributes:
        encoder: network from images to embeddings [..., d].
        tx: optimizer of encoder and prototypes. In SwAV it does not update the
            prototypes in the first steps (`frozen_steps` of `logo_jax.training.optim`).
        pair_weights: weight of each directed pair (view that predicts, view whose code
            is predicted), [s, t].
        num_prototypes: number of prototypes, unit vectors [k, d] to which images are
            assigned.
        temperature: divides scores in the predictions' softmax, > 0.
        epsilon: smoothness of the codes, > 0: a larger value spreads each image over
            more prototypes. Codes are the assignments of images to prototypes.
        iterations: number of Sinkhorn-Knopp iterations that compute the codes, >= 1.
        queue_size: number of earlier images that are added to compute the codes, for
            batches that are small relative to the number of prototypes; 0: no queue.
        queue_start: first step that uses the queue, if it is full by then. The queue is
            filled from the first step on; that of the released code from `queue_start`
            on.
        running_stats: "all" views update the encoder's running statistics, or only
            "globals".

    Raises:
        ValueError: if a number is out of its range.

    Source: Caron et al. 2020, https://arxiv.org/abs/2006.09882;
        facebookresearch/swav@main_swav.py.
    """

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    num_prototypes: int
    temperature: float
    epsilon: float
    iterations: int
    queue_size: int
    queue_start: int
    running_stats: str = "all"

    trains = (ENCODER, PROTOTYPES)

    def __post_init__(self):
        for name, usual in POSITIVE.items():
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name}={value} must be positive; try {usual}")
        if self.queue_size < 0:
            raise ValueError(
                f"queue_size={self.queue_size} must be >= 0; use 0 for no queue"
            )
        if self.queue_start and not self.queue_size:
            raise ValueError(
                f"queue_start={self.queue_start} needs a queue; set queue_size, or "
                "start at step 0 (config.method.queue_start_epoch=0)"
            )

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step; an empty queue holds zeros."""
        self._check_queue(len(batch.global_crops))
        encoder_key, prototypes_key = jax.random.split(key)
        view = batch.global_crops[:1, 0]
        z, encoder = self.encoder.init_with_output(encoder_key, view, train=False)
        dim = z.shape[-1]
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

    def update_momentum_encoder(self, state: TrainState) -> TrainState:
        """Scales the prototypes to unit length, which the last step has changed.

        SwAV has no momentum encoder; this is the part of an update before the gradient.
        """
        prototypes = jax.tree.map(l2_normalize, state.params[PROTOTYPES])
        return state.replace(params=state.params | {PROTOTYPES: prototypes})

    def loss(self, state: TrainState, batch: Batch, targets: None):
        """Returns the weighted cross-entropy of predicting other views' codes."""
        del targets  # they are codes of the encoder's own embeddings
        weights, variables = self.pair_weights, state.variables(ENCODER)
        encoded, assigned = encode_pairs(
            self.encoder, variables, batch, weights, self.running_stats
        )
        prototypes = state.params[PROTOTYPES]["kernel"]
        assigned = gather(jax.lax.stop_gradient(l2_normalize(assigned)), axis=1)
        codes = self._codes(state, assigned, jax.lax.stop_gradient(prototypes))
        codes = local_rows(codes, axis=1)
        losses = swapped_prediction(
            codes,
            similarity(l2_normalize(encoded.embeddings), prototypes),
            temperature=self.temperature,
        )
        num_global = batch.global_crops.shape[1]
        loss, metrics = pair_loss(losses, used_weights(weights), num_global)
        return loss, Forward(
            embeddings=encoded.embeddings,
            batch_stats={ENCODER: encoded.batch_stats},
            memory=self._enqueue(state.memory, assigned),
            metrics=metrics | {"code_entropy": entropy(codes).mean()},
            features=encoded.features,
        )

    def _codes(self, state, targets, prototypes):
        """Returns codes [t, n, k] of all devices' embeddings [t, n, d], per view."""

        def assign(z):
            scores = similarity(z, prototypes)
            return jax.vmap(
                lambda view: sinkhorn(
                    view, epsilon=self.epsilon, iterations=self.iterations
                )
            )(scores)

        if not self.queue_size:
            return assign(targets)
        queue = state.memory["queue"]
        # The newest entries are first; the last one is zero until the queue is full.
        ready = (state.step >= self.queue_start) & queue[:, -1].any()
        together = jnp.concatenate([targets, queue], axis=1)
        return jax.lax.cond(
            ready,
            lambda: assign(together)[:, : targets.shape[1]],
            lambda: assign(targets),
        )

    def _enqueue(self, memory, targets):
        """Returns the queue after embeddings [t, n, d] have replaced the oldest."""
        if not self.queue_size:
            return {}
        queue = jnp.concatenate([targets, memory["queue"]], axis=1)
        return {"queue": queue[:, : self.queue_size]}

    def _check_queue(self, batch_size):
        """Raises an error if a queue does not hold a whole number of batches."""
        if self.queue_size % batch_size:
            usual = max(1, round(self.queue_size / batch_size)) * batch_size
            raise ValueError(
                f"queue_size={self.queue_size} must be a multiple of the {batch_size} "
                f"images that are added per step; use {usual}, or 0 for no queue"
            )


def similarity(embeddings: jax.Array, prototypes: jax.Array) -> jax.Array:
    """Returns scores [v, b, k] of embeddings [v, b, d] for prototypes [k, d]."""
    return jnp.einsum("vbd,kd->vbk", embeddings, prototypes)


def entropy(codes: jax.Array) -> jax.Array:
    """Computes the entropy [...] of distributions [..., k], in nats; log(k) if uniform.

    Codes are uniform if all embeddings are equal.
    """
    return jax.scipy.special.entr(codes).sum(-1)
