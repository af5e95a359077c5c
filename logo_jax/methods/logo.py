"""LoGo around a base method: local crops of one image are pushed apart.

In each step an affinity learns how similar two local embeddings are
(`methods/affinity.py`). Then the encoder is trained to make the local crops of each
image less similar: in a step of its own before the base method's (`released`), or by a
term in the base method's loss (`joint`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from logo_jax.methods.affinity import Affinity
from logo_jax.methods.base import ENCODER, BaseMethod, Batch, Forward, TrainState
from logo_jax.methods.gradient import apply_gradients
from logo_jax.methods.multi_crop import encode_views
from logo_jax.parallel.collectives import varying

UPDATES = ("released", "joint")


@dataclasses.dataclass(frozen=True)
class LoGo:
    """LoGo around `base`.

    Attributes:
        base: the method that attracts views; its pairing decides how it uses local
            crops.
        affinity: measures how similar two local crops are.
        repel_tx: the encoder's optimizer in the released update's own step on the
            repulsion; takes `max_norm`.
        update_kind: "released": a clipped step on the repulsion, then base's step;
            "joint": one step on base's loss plus `weight` times the repulsion.
        weight: of the repulsion in the joint update; the paper's lambda.
        clip_ratio: in the released update, the norm of the repulsion's gradient is at
            most this ratio times the norm of the encoder's gradient in the previous
            base step.
        reset_norm: whether that norm is set to 0 at the first step of each epoch, as in
            the released code, so that this step has no repulsion.
        steps_per_epoch: steps after which an epoch begins; only for `reset_norm`.
        update_momentum_before_repel: the base's momentum encoder also moves before the
            repulsion's forward pass, as in the released MoCo, whose key encoder moves
            in every forward pass.

    Source: LoGo, Eqs. 5, 6, 9 and Algorithm 1, https://arxiv.org/abs/2203.17205;
        ztt1024/LoGo-SSL@trainers.py.
    """

    base: BaseMethod
    affinity: Affinity
    repel_tx: optax.GradientTransformationExtraArgs
    update_kind: str
    weight: float
    clip_ratio: float
    reset_norm: bool
    steps_per_epoch: int
    update_momentum_before_repel: bool

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
        """One step; random numbers are drawn for the global batch, then split."""
        affinity_key, base_key = jax.random.split(key)
        if self.update_kind == "joint":
            return self._update_jointly(state, batch, base_key, affinity_key)
        return self._update_as_released(state, batch, base_key, affinity_key)

    def _update_as_released(self, state, batch, key, affinity_key):
        """Regressor step, clipped repulsion step, base step."""
        if self.update_momentum_before_repel:
            state = self.base.update_momentum_encoder(state)
        state, local_metrics = self._repel(state, batch, affinity_key)
        state, metrics = self.base.update(state, batch, key)
        grad_norm = {"grad_norm": metrics["grad_norm"]}
        state = state.replace(memory=state.memory | grad_norm)
        return state, metrics | local_metrics

    def _repel(self, state, batch, key):
        """The affinity's step, then the encoder's, on one encoding of local crops."""
        num_global, num_local = (crops.shape[1] for crops in batch[:2])
        local_views = range(num_global, num_global + num_local)
        variables = state.variables(ENCODER)

        def encode_locals(params):
            encoded = encode_views(
                self.base.encoder,
                variables | {"params": params},
                batch,
                local_views,
                self.base.running_stats,
            )
            return encoded.embeddings, encoded.batch_stats

        embeddings, backward, stats = jax.vjp(
            encode_locals, varying(variables["params"]), has_aux=True
        )
        state = state.replace(batch_stats=state.batch_stats | {ENCODER: stats})
        state, metrics = self.affinity.learn(state, embeddings, key)
        grad, (state, repulsion) = jax.grad(
            lambda z: self.affinity.repulsion(state, z, key), has_aux=True
        )(embeddings)
        max_norm = self.clip_ratio * self._last_norm(state)
        state, norms = apply_gradients(
            state,
            {ENCODER: backward(grad)[0]},
            tx=self.repel_tx,
            opt_state="repel",
            max_norm=max_norm,
        )
        clipping = {
            "repel_grad_norm": norms[ENCODER],
            "health/clip_ratio": applied_ratio(norms[ENCODER], max_norm),
        }
        return state, metrics | repulsion | clipping

    def _update_jointly(self, state, batch, key, affinity_key):
        """Affinity's step, then one step on base's loss plus weighted repulsion."""

        def extra_loss(state: TrainState, forward: Forward):
            local = forward.embeddings[-batch.local_crops.shape[1] :]
            state, metrics = self.affinity.learn(
                state, jax.lax.stop_gradient(local), affinity_key
            )
            repulsion, (state, aux) = self.affinity.repulsion(
                state, local, affinity_key
            )
            return self.weight * repulsion, (state, metrics | aux)

        return self.base.update(state, batch, key, extra_loss)

    def _last_norm(self, state):
        """Norm of the encoder's gradient in the previous base step, unless reset."""
        norm = state.memory["grad_norm"]
        if not self.reset_norm:
            return norm
        return jnp.where(state.step % self.steps_per_epoch == 0, 0.0, norm)

    def _dim(self, state, batch):
        """Size of the embeddings of local crops."""
        local = jax.eval_shape(
            lambda variables, x: self.base.encoder.apply(variables, x, train=False),
            state.variables(ENCODER),
            batch.local_crops[:1, 0],
        )
        return local.shape[-1]

    def _check_locals_predict(self, num_local):
        """Raises if base's loss does not encode every local crop."""
        if not self.base.pair_weights[-num_local:].any(axis=1).all():
            raise ValueError(
                "logo.update_kind='joint' needs a pairing that reads every local crop; "
                "use pairing='global_targets', or logo.update_kind='released'"
            )


def applied_ratio(norm: jax.Array, max_norm: jax.Array) -> jax.Array:
    """The factor by which clipping scales a gradient of that norm, in [0, 1]."""
    return jnp.where(norm > max_norm, max_norm / jnp.where(norm > 0, norm, 1.0), 1.0)
