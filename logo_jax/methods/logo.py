"""LoGo around a base method: local crops of one image keep apart.

Each step an affinity learns how alike two local embeddings are (`methods/affinity.py`);
then the encoder is pushed to make the local crops of each image less alike, either in a
step of its own before the base method's (`released`) or as a term of the base method's
loss (`joint`).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from logo_jax.methods.affinity import Affinity
from logo_jax.methods.base import ENCODER, BaseMethod, Batch, Forward, TrainState
from logo_jax.methods.gradient import apply_gradients
from logo_jax.methods.multi_crop import encode_crops
from logo_jax.parallel.collectives import varying

UPDATES = ("released", "joint")


@dataclasses.dataclass(frozen=True)
class LoGo:
    """LoGo around `base`.

    Attributes:
        base: the method that pulls; its pairing decides what it does with local crops.
        encoder: the network that base trains.
        affinity: how alike two local crops are found.
        repel_tx: the released update's own optimiser of the encoder: takes `max_norm`.
        update_kind: "released": a clipped step on the repulsion, then base's step;
            "joint": one step on base's loss plus `weight` times the repulsion.
        weight: of the repulsion in the joint update, the paper's lambda.
        clip_ratio: of the released update: its gradient's norm is at most this times
            the encoder's in the previous base step.
        reset_norm_every: steps after which that norm is forgotten, so that the next
            repulsion has no gradient: an epoch's, as released; 0: never.
        update_momentum_before_repel: the base's momentum encoder also moves before the
            repulsion's forward pass, as in the released MoCo, whose key encoder moves
            in every forward pass.
        stats_from_globals: local crops leave the encoder's running statistics alone.

    Source: LoGo, Eqs. 5, 6, 9 and Algorithm 1, https://arxiv.org/abs/2203.17205;
        ztt1024/LoGo-SSL@trainers.py.
    """

    base: BaseMethod
    encoder: nn.Module
    affinity: Affinity
    repel_tx: optax.GradientTransformationExtraArgs
    update_kind: str = "released"
    weight: float = 1e-4
    clip_ratio: float = 0.015
    reset_norm_every: int = 0
    update_momentum_before_repel: bool = False
    stats_from_globals: bool = False

    def __post_init__(self):
        if self.update_kind not in UPDATES:
            raise ValueError(
                f"logo.update_kind={self.update_kind!r} must be one of {UPDATES}"
            )

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """The base's state, with the affinity's and, if released, a second momentum."""
        base_key, affinity_key = jax.random.split(key)
        state = self.base.init(base_key, batch)
        num_local = batch.local_crops.shape[1]
        if num_local < 2 or num_local % 2:
            raise ValueError(
                f"crops.local_crops={num_local} must be an even number, 2 or more, for "
                "LoGo to pair them; use 2"
            )
        state = self.affinity.init(state, affinity_key, self._dim(state, batch))
        if self.update_kind == "joint":
            self._check_locals_predict(num_local)
            return state
        repel_state = self.repel_tx.init({ENCODER: state.params[ENCODER]})
        return state.replace(
            opt_states=state.opt_states | {"repel": repel_state},
            memory=state.memory | {"grad_norm": jnp.zeros(())},
        )

    def update(self, state: TrainState, batch: Batch, key: jax.Array):
        """One step; random draws are made for the global batch, then split."""
        affinity_key, base_key = jax.random.split(key)
        if self.update_kind == "joint":
            return self._update_jointly(state, batch, base_key, affinity_key)
        return self._update_as_released(state, batch, base_key, affinity_key)

    def _update_as_released(self, state, batch, key, affinity_key):
        """Regressor step, clipped repulsion step, base step."""
        if self.update_momentum_before_repel:
            state = self.base.prepare(state)
        state, local_metrics = self._repel(state, batch, affinity_key)
        state, metrics = self.base.update(state, batch, key)
        grad_norm = {"grad_norm": metrics["grad_norm"]}
        state = state.replace(memory=state.memory | grad_norm)
        return state, metrics | local_metrics

    def _repel(self, state, batch, key):
        """The affinity's step, then the encoder's, on one encoding of local crops."""
        num_global, num_local = (crops.shape[1] for crops in batch[:2])

        def encode(params):
            embeddings, stats, _ = encode_crops(
                self.encoder,
                params,
                state.batch_stats[ENCODER],
                batch,
                range(num_global, num_global + num_local),
                stats_from_globals=self.stats_from_globals,
            )
            return embeddings, stats

        embeddings, pull_back, stats = jax.vjp(
            encode, varying(state.params[ENCODER]), has_aux=True
        )
        state = state.replace(batch_stats=state.batch_stats | {ENCODER: stats})
        state, metrics = self.affinity.learn(state, embeddings, key)
        grad, (state, repulsion) = jax.grad(
            lambda z: self.affinity.repulsion(state, z, key), has_aux=True
        )(embeddings)
        max_norm = self.clip_ratio * self._last_norm(state)
        state, norms = apply_gradients(
            state,
            {ENCODER: pull_back(grad)[0]},
            tx=self.repel_tx,
            slot="repel",
            max_norm=max_norm,
        )
        clipping = {
            "repel_grad_norm": norms[ENCODER],
            "health/clip_ratio": applied_ratio(norms[ENCODER], max_norm),
        }
        return state, metrics | repulsion | clipping

    def _update_jointly(self, state, batch, key, affinity_key):
        """Affinity's step, then one step on base's loss plus weighted repulsion."""

        def term(state: TrainState, forward: Forward):
            local = forward.embeddings[-batch.local_crops.shape[1] :]
            state, metrics = self.affinity.learn(
                state, jax.lax.stop_gradient(local), affinity_key
            )
            repulsion, (state, aux) = self.affinity.repulsion(
                state, local, affinity_key
            )
            return self.weight * repulsion, (state, metrics | aux)

        return self.base.update(state, batch, key, term)

    def _last_norm(self, state):
        """The encoder's gradient norm in the previous base step, unless forgotten."""
        norm = state.memory["grad_norm"]
        if not self.reset_norm_every:
            return norm
        return jnp.where(state.step % self.reset_norm_every == 0, 0.0, norm)

    def _dim(self, state, batch):
        """Size of the embeddings of local crops."""
        local = jax.eval_shape(
            lambda variables, x: self.encoder.apply(variables, x, train=False),
            {
                "params": state.params[ENCODER],
                "batch_stats": state.batch_stats[ENCODER],
            },
            batch.local_crops[:1, 0],
        )
        return local.shape[-1]

    def _check_locals_predict(self, num_local):
        """Raises where base's loss leaves local crops out, so that none is at hand."""
        if not self.base.pair_weights[-num_local:].any(axis=1).all():
            raise ValueError(
                "logo.update_kind='joint' needs a pairing that reads every local crop; "
                "use pairing='global_targets', or logo.update_kind='released'"
            )


def applied_ratio(norm: jax.Array, max_norm: jax.Array) -> jax.Array:
    """What clipping a gradient of that norm multiplies it by, in [0, 1]; 1: nothing."""
    return jnp.where(norm > max_norm, max_norm / jnp.where(norm > 0, norm, 1.0), 1.0)
