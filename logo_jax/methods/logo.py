"""LoGo around a base method: local crops of one image keep apart.

Each step a regressor learns to tell whether two local embeddings come from one image
(`_train_regressor`); then the encoder is pushed to make the local crops of each image
look as if they did not (`_repulsion`), either in a step of its own before the base
method's (`released`) or as a term of the base method's loss (`joint`).
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from logo_jax.losses import (
    cosine_affinity,
    different_image,
    jensen_shannon,
    l2_normalize,
)
from logo_jax.state import (
    ENCODER,
    REGRESSOR,
    BaseMethod,
    Batch,
    Forward,
    Metrics,
    TrainState,
)
from logo_jax.step import (
    apply_gradients,
    base_update,
    global_size,
    gradient_step,
    local_rows,
    per_device,
    reverse_batch,
)
from logo_jax.views import encode_views, split_views

UPDATES = ("released", "joint")
AFFINITIES = ("regressor", "cosine")


@dataclasses.dataclass(frozen=True)
class LoGo:
    """LoGo around `base`.

    Attributes:
        base: the method that pulls; its pairing decides what it does with local crops.
        encoder: the network that base trains.
        regressor: concatenated pairs [.., 2d] to scores [..].
        regressor_tx: the regressor's optimiser.
        repel_tx: the released update's own optimiser of the encoder: takes `max_norm`.
        update_kind: "released": a clipped step on the repulsion, then base's step;
            "joint": one step on base's loss plus `weight` times the repulsion.
        affinity: what repels: the "regressor", or "cosine" similarity without one.
        regressor_loss: from scores of pairs from one image and from two to a loss.
        weight: of the repulsion in the joint update, the paper's lambda.
        clip_ratio: of the released update: its gradient's norm is at most this times
            the encoder's in the previous base step.
        noise: norm of the noise on the regressor's positive pairs, on embeddings of
            norm one.
        normalize: whether the regressor sees unit vectors.
        prepare_before_repel: base prepares before the repulsion's forward too: the
            released MoCo, whose key encoder moves in every forward.

    Source: LoGo, Eqs. 5, 6, 9 and Algorithm 1, https://arxiv.org/abs/2203.17205;
        ztt1024/LoGo-SSL@trainers.py.
    """

    base: BaseMethod
    encoder: nn.Module
    regressor: nn.Module
    regressor_tx: optax.GradientTransformationExtraArgs
    repel_tx: optax.GradientTransformationExtraArgs
    update_kind: str = "released"
    affinity: str = "regressor"
    regressor_loss: Callable[[jax.Array, jax.Array], jax.Array] = jensen_shannon
    weight: float = 1e-4
    clip_ratio: float = 0.015
    noise: float = 0.3
    normalize: bool = True
    prepare_before_repel: bool = False

    def __post_init__(self):
        if self.update_kind not in UPDATES:
            raise ValueError(
                f"logo.update_kind={self.update_kind!r} must be one of {UPDATES}"
            )
        if self.affinity not in AFFINITIES:
            raise ValueError(f"logo.affinity={self.affinity!r} must be in {AFFINITIES}")

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """The base's state, with a regressor and, if released, a second momentum."""
        base_key, regressor_key = jax.random.split(key)
        state = self.base.init(base_key, batch)
        num_local = batch.local_crops.shape[1]
        if num_local < 2 or num_local % 2:
            raise ValueError(
                f"crops.local_crops={num_local} must be an even number, 2 or more, for "
                "LoGo to pair them; use 2"
            )
        if self.update_kind == "joint":
            self._check_locals_predict(num_local)
        if self.affinity == "regressor":
            state = self._add_regressor(state, regressor_key, batch)
        if self.update_kind == "joint":
            return state
        repel_state = self.repel_tx.init({ENCODER: state.params[ENCODER]})
        return state.replace(
            opt_states=state.opt_states | {"repel": repel_state},
            memory=state.memory | {"grad_norm": jnp.zeros(())},
        )

    def update(self, state: TrainState, batch: Batch, key: jax.Array):
        """One step; the noise is drawn for the global batch, then split."""
        noise_key, base_key = jax.random.split(key)
        return self.update_with_noise(
            state, batch, base_key, self._draw_noise(state, batch, noise_key)
        )

    def update_with_noise(
        self, state: TrainState, batch: Batch, key: jax.Array, noise: jax.Array
    ):
        """One step with the noise [2, p, b, d] of the regressor's positive pairs."""
        if self.update_kind == "joint":
            return self._update_jointly(state, batch, key, noise)
        return self._update_as_released(state, batch, key, noise)

    def _update_as_released(self, state, batch, key, noise):
        """Regressor step, clipped repulsion step, base step."""
        if self.prepare_before_repel:
            state = self.base.prepare(state)
        state, local_metrics = self._repel(state, batch, noise)
        state, metrics, grad_norms = base_update(self.base, state, batch, key)
        grad_norm = grad_norms[ENCODER]
        state = state.replace(memory=state.memory | {"grad_norm": grad_norm})
        return state, metrics | local_metrics | {"grad_norm": grad_norm}

    def _repel(self, state, batch, noise):
        """The regressor's step, then the encoder's, on one encoding of local crops."""
        num_global = batch.global_crops.shape[1]

        def encode(params):
            stats = state.batch_stats[ENCODER]
            views = split_views(batch)[num_global:]
            return encode_views(self.encoder, params, stats, views)

        embeddings, pull_back, stats = jax.vjp(
            encode, per_device(state.params[ENCODER]), has_aux=True
        )
        state = state.replace(batch_stats=state.batch_stats | {ENCODER: stats})
        state, metrics = self._train_regressor(state, embeddings, noise)
        grad, (state, repulsion) = jax.grad(
            lambda z: self._repulsion(state, z), has_aux=True
        )(embeddings)
        state, norms = apply_gradients(
            state,
            {ENCODER: pull_back(grad)[0]},
            tx=self.repel_tx,
            slot="repel",
            max_norm=self.clip_ratio * state.memory["grad_norm"],
        )
        return state, metrics | repulsion | {"repel_grad_norm": norms[ENCODER]}

    def _update_jointly(self, state, batch, key, noise):
        """Regressor step, then one step on base's loss plus weighted repulsion."""

        def term(state: TrainState, forward: Forward):
            local = forward.embeddings[-batch.local_crops.shape[1] :]
            state, metrics = self._train_regressor(
                state, jax.lax.stop_gradient(local), noise
            )
            repulsion, (state, aux) = self._repulsion(state, local)
            return self.weight * repulsion, (state, metrics | aux)

        state, metrics, grad_norms = base_update(self.base, state, batch, key, term)
        return state, metrics | {"grad_norm": grad_norms[ENCODER]}

    def _train_regressor(self, state, embeddings, noise) -> tuple[TrainState, Metrics]:
        """One step of the regressor on pairs from one image and from two (Eq. 6)."""
        if self.affinity == "cosine":
            return state, {}
        first, second = self._pairs(embeddings)
        # noise belongs to the place in the pair, not to the crop, as released
        positives = [
            pair(first + noise[0], second + noise[1]),
            pair(second + noise[0], first + noise[1]),
        ]
        negatives = [
            pair(first, reverse_batch(second, 1)),
            pair(second, reverse_batch(first, 1)),
        ]
        num_positive = 2 * first.shape[0]

        def loss_fn(params):
            scores, after = self._score(
                state, params[REGRESSOR], jnp.concatenate(positives + negatives)
            )
            loss = self.regressor_loss(scores[:num_positive], scores[num_positive:])
            metrics = {
                "regressor_loss": loss,
                "score_same": scores[:num_positive].mean(),
                "score_different": scores[num_positive:].mean(),
            }
            return loss, (after, metrics)

        state, metrics, _ = gradient_step(
            state, loss_fn, trains=(REGRESSOR,), tx=self.regressor_tx, slot="regressor"
        )
        return state, metrics

    def _repulsion(self, state, embeddings):
        """How alike local crops of one image are found (Eq. 5), and the state after."""
        first, second = self._pairs(embeddings)
        if self.affinity == "cosine":
            loss = cosine_affinity(first, second).mean()
            return loss, (state, {"repulsion": loss})
        scores, state = self._score(state, state.params[REGRESSOR], pair(first, second))
        loss = different_image(scores).mean()
        return loss, (state, {"repulsion": loss})

    def _score(self, state, params, pairs):
        """Scores [n, b] of pairs [n, b, 2d], and the state with the new statistics."""
        scores, stats = encode_views(
            self.regressor, params, state.batch_stats[REGRESSOR], [*pairs]
        )
        return scores, state.replace(batch_stats=state.batch_stats | {REGRESSOR: stats})

    def _pairs(self, embeddings):
        """First and second members [p, b, d] of the pairs of local crops."""
        z = l2_normalize(embeddings) if self.normalize else embeddings
        half = z.shape[0] // 2
        return z[:half], z[half:]

    def _draw_noise(self, state, batch, key):
        """This device's noise [2, p, b, d]; its norm is about `noise`."""
        if self.affinity == "cosine":
            return jnp.zeros(())
        dim = state.params[REGRESSOR]["mlp"]["fc0"]["kernel"].shape[0] // 2
        rows, num_local = batch.local_crops.shape[:2]
        shape = (2, num_local // 2, global_size(rows), dim)
        noise = jax.random.normal(key, shape)
        return local_rows(self.noise / dim**0.5 * noise, axis=2)

    def _add_regressor(self, state, key, batch):
        """State with the regressor's parameters, statistics and optimiser state."""
        local = jax.eval_shape(
            lambda variables, x: self.encoder.apply(variables, x, train=False),
            {
                "params": state.params[ENCODER],
                "batch_stats": state.batch_stats[ENCODER],
            },
            batch.local_crops[:1, 0],
        )
        pairs = jnp.zeros((1, 2 * local.shape[-1]))
        regressor = self.regressor.init(key, pairs, train=False)
        params = {REGRESSOR: regressor["params"]}
        stats = {REGRESSOR: regressor.get("batch_stats", {})}
        opt_states = {"regressor": self.regressor_tx.init(params)}
        return state.replace(
            params=state.params | params,
            batch_stats=state.batch_stats | stats,
            opt_states=state.opt_states | opt_states,
        )

    def _check_locals_predict(self, num_local):
        """Raises where base's loss leaves local crops out, so that none is at hand."""
        if not self.base.pair_weights[-num_local:].any(axis=1).all():
            raise ValueError(
                "logo.update_kind='joint' needs a pairing that reads every local crop; "
                "use pairing='global_targets', or logo.update_kind='released'"
            )


def pair(first: jax.Array, second: jax.Array) -> jax.Array:
    """Two embeddings [.., d] as one input [.., 2d] of the regressor."""
    return jnp.concatenate([first, second], axis=-1)
