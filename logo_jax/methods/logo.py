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
    """LoGo around a base method.

    Attributes:
        base: the method that attracts views; its pairing decides how it uses local
            crops.
        affinity: measures how similar two local crops are.
        repel_tx: the encoder's optimizer for the separate step on the repulsion in the
            released update; it takes `max_norm`.
        update_kind: "released": a clipped step on the repulsion, then the base's step;
            "joint": one step on the base's loss plus `weight` times the repulsion.
        weight: weight of the repulsion in the joint update; lambda in the paper.
        clip_ratio: in the released update, the norm of the repulsion's gradient is at
            most this ratio times the norm of the encoder's gradient in the previous
            base step.
        reset_norm: whether the previous norm counts as 0 in the first step of each
            epoch, as in the released code, so that this step has no repulsion.
        steps_per_epoch: number of steps of an epoch; used for `reset_norm` only.
        update_momentum_before_repel: whether the base's momentum encoder is also
            updated before the repulsion's forward pass, as in the released MoCo, whose
            key encoder is updated in every forward pass.

    Raises:
        ValueError: if update_kind is unknown.

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
        """Returns the base's state with the affinity's state.

        The released update also needs the optimizer state of the repulsion and the
        gradient norm of the previous base step.
        """
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
        """Takes one step; random numbers are drawn for the global batch, then split."""
        affinity_key, base_key = jax.random.split(key)
        if self.update_kind == "joint":
            return self._update_jointly(state, batch, base_key, affinity_key)
        return self._update_as_released(state, batch, base_key, affinity_key)

    def _update_as_released(self, state, batch, key, affinity_key):
        """Takes the regressor's step, the clipped repulsion step and the base step."""
        if self.update_momentum_before_repel:
            state = self.base.update_momentum_encoder(state)
        state, local_metrics = self._repel(state, batch, affinity_key)
        state, metrics = self.base.update(state, batch, key)
        grad_norm = {"grad_norm": metrics["grad_norm"]}
        state = state.replace(memory=state.memory | grad_norm)
        return state, metrics | local_metrics

    def _repel(self, state, batch, key):
        """Takes the affinity's and the encoder's step on the same local embeddings."""
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
        """Takes the affinity's step, then one on base's loss plus the repulsion."""

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
        """Returns the encoder's gradient norm of the last base step, or 0 if reset."""
        norm = state.memory["grad_norm"]
        if not self.reset_norm:
            return norm
        return jnp.where(state.step % self.steps_per_epoch == 0, 0.0, norm)

    def _dim(self, state, batch):
        """Returns the size of the embeddings of local crops."""
        local = jax.eval_shape(
            lambda variables, x: self.base.encoder.apply(variables, x, train=False),
            state.variables(ENCODER),
            batch.local_crops[:1, 0],
        )
        return local.shape[-1]

    def _check_locals_predict(self, num_local):
        """Raises an error if base's loss does not encode every local crop."""
        if not self.base.pair_weights[-num_local:].any(axis=1).all():
            raise ValueError(
                "logo.update_kind='joint' needs a pairing that uses every local crop; "
                "use pairing='global_targets', or logo.update_kind='released'"
            )


def applied_ratio(norm: jax.Array, max_norm: jax.Array) -> jax.Array:
    """Returns the factor in [0, 1] by which clipping scales a gradient of that norm."""
    return jnp.where(norm > max_norm, max_norm / jnp.where(norm > 0, norm, 1.0), 1.0)
