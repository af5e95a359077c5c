"""A backbone that compiles fast, for tests of everything else."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from logo_jax.networks.batch_norm import BatchNorm

BACKBONE = "tests.backbones:TwoConvolutions"
# config fields of a run whose network and colors do not matter
CHEAP = {
    "encoder.backbone": BACKBONE,
    "encoder.width": 4,
    "encoder.head_hidden": 8,
    "encoder.embedding_dim": 8,
    "augment.jitter_prob": 0.0,
    "augment.grayscale_prob": 0.0,
}


class TwoConvolutions(nn.Module):
    """Two strided convolutions with batch norm, then the mean over pixels.

    Args:
        width: channels of the first convolution; the second has twice as many.
        norm: constructor of normalization layers.
        dtype: type of the computation.
    """

    width: int = 4
    norm: Any = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for i in (1, 2):
            x = nn.Conv(self.width * i, (3, 3), 2, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(self.norm(dtype=self.dtype)(x, train=train))
        return x.mean((-3, -2))
