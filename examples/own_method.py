"""A method of your own, Barlow Twins, with LoGo around it, on scikit-learn's digits.

python -m examples.own_method
"""

import dataclasses
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import logo_jax
from examples.own_arrays import FIELDS, digits
from logo_jax.experiment.config import NOT_NEGATIVE
from logo_jax.methods.base import ENCODER, Batch, Forward, TrainState
from logo_jax.methods.gradient import GradientMethod
from logo_jax.methods.multi_crop import encode_pairs
from logo_jax.methods.pairing import used_weights
from logo_jax.parallel.collectives import as_mean_over_devices, gather


@dataclasses.dataclass(frozen=True)
class BarlowTwins(GradientMethod):
    """Makes the matrix of correlations between two views' embeddings the identity.

    Source: Zbontar et al. 2021, https://arxiv.org/abs/2103.03230.
    """

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    running_stats: str
    off_diagonal: Annotated[float, NOT_NEGATIVE]  # a config field of this method

    trains = (ENCODER,)

    def init(self, key: jax.Array, batch: Batch) -> TrainState:
        """Returns the state before the first step."""
        encoder = self.encoder.init(key, batch.global_crops[:1, 0], train=False)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params={ENCODER: encoder["params"]},
            batch_stats={ENCODER: encoder.get("batch_stats", {})},
            opt_states={"base": self.tx.init({ENCODER: encoder["params"]})},
            memory={},
        )

    def loss(self, state: TrainState, batch: Batch, targets: None):
        """Returns the weighted sum of the losses of all pairs of views."""
        del targets  # they are views of the encoder itself
        encoded, paired = encode_pairs(
            self.encoder,
            state.variables(ENCODER),
            batch,
            self.pair_weights,
            self.running_stats,
        )
        first, second = standardized(encoded.embeddings), standardized(paired)
        correlations = jnp.einsum("sbd,tbe->stde", first, second) / first.shape[1]
        identity = jnp.eye(first.shape[-1])
        scales = jnp.where(identity > 0, 1.0, self.off_diagonal)
        losses = jnp.sum(scales * (correlations - identity) ** 2, axis=(2, 3))
        loss = as_mean_over_devices(jnp.sum(used_weights(self.pair_weights) * losses))
        stats = {ENCODER: encoded.batch_stats}
        return loss, Forward(encoded.embeddings, stats, {}, {}, encoded.features)


def standardized(embeddings: jax.Array) -> jax.Array:
    """Scales each dimension to mean 0 and variance 1 over the images of all devices."""
    z = gather(embeddings, axis=1)
    return (z - z.mean(1, keepdims=True)) / (z.std(1, keepdims=True) + 1e-5)


def main() -> None:
    """Trains on digits and prints the kNN accuracy over the training."""
    changes = {"method.name": BarlowTwins, "method.off_diagonal": 0.005}
    changes |= {"logo.update_kind": "joint", "encoder.head": "byol"}
    run = logo_jax.pretrain(
        digits(),
        config="cifar10_simsiam:logo",
        workdir="runs/own_method",
        **FIELDS | changes,
    )
    for row in run.metrics:
        if "knn/k20_t0.07/top1" in row:
            print(f"step {row['step']}: kNN {row['knn/k20_t0.07/top1']:.1f} %")


if __name__ == "__main__":
    main()
