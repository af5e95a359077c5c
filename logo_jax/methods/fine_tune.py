"""Fine-tuning: a backbone and a linear classifier are trained on labels together."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from logo_jax.methods.base import ENCODER, LINEAR, Batch, Metrics, TrainState
from logo_jax.methods.gradient import gradient_step
from logo_jax.methods.linear import classification_loss, logits, random_classifier
from logo_jax.methods.multi_crop import encode


class Setting(NamedTuple):
    """What distinguishes one fine-tuning from another that has the same program.

    Attributes:
        learning_rate: learning rate of the first step.
        weight_decay: multiple of each parameter that is added to its gradient.
        num_steps: number of steps of the schedule.
    """

    learning_rate: Any
    weight_decay: Any
    num_steps: Any


@dataclasses.dataclass(frozen=True)
class FineTune:
    """Trains all weights of a backbone, and a linear classifier of its features.

    Its input is the first global crop of each image, with batch norm in training mode.
    Weights of the classifier are initialized from a normal distribution of standard
    deviation 0.01, its bias to zero. The setting is in the state's memory, so that one
    compiled step serves all settings of a grid.

    Attributes:
        encoder: network whose backbone is trained.
        variables: the encoder's "params" and "batch_stats" before the first step; only
            those of the backbone are kept.
        num_classes: number of classes of the labels.
        make_optimizer: function from a learning rate and a weight decay, which are
            traced, to the optimizer.
        schedule: function from the completed fraction of the steps, in [0, 1), to the
            factor of the learning rate.
    """

    encoder: nn.Module
    variables: Mapping[str, Any]
    num_classes: int
    make_optimizer: Callable[[Any, Any], optax.GradientTransformationExtraArgs]
    schedule: Callable[[jax.Array], jax.Array]

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step, whose setting is all zero."""
        first = (self.encoder, self.variables, batch, self.num_classes)
        params = {
            ENCODER: {"backbone": self.variables["params"]["backbone"]},
            LINEAR: random_classifier(key, *first),
        }
        stats = self.variables["batch_stats"].get("backbone", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={ENCODER: {"backbone": stats}},
            opt_states={"base": self.make_optimizer(0.0, 0.0).init(params)},
            memory=Setting(*jnp.zeros((3,)))._asdict(),
        )

    def update(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        """Takes one step; metrics are from before the step."""
        del key  # only the crops are random
        setting = Setting(**state.memory)
        done = state.step.astype(jnp.float32) / setting.num_steps
        rate = setting.learning_rate * self.schedule(done)
        stats = state.batch_stats[ENCODER]["backbone"]
        crops = batch.global_crops[:, 0]

        def loss_fn(params):
            variables = {"params": params[ENCODER]["backbone"], "batch_stats": stats}
            encoded = encode(self.encoder.backbone, variables, [crops])
            features = encoded.embeddings[0].astype(jnp.float32)
            scores = logits(params[LINEAR], features)
            loss, metrics = classification_loss(scores, batch.labels)
            moved = {ENCODER: {"backbone": encoded.batch_stats}}
            return loss, (state.replace(batch_stats=moved), metrics)

        state, metrics, _ = gradient_step(
            state,
            loss_fn,
            trains=(ENCODER, LINEAR),
            tx=self.make_optimizer(rate, setting.weight_decay),
            opt_state="base",
        )
        return state, metrics | {"learning_rate": rate}
