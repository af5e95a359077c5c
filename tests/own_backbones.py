"""Backbones as a user writes them, which know nothing of this library."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx


class ConvNeXt(nn.Module):
    """Strided patches, then blocks of a depthwise convolution and a layer norm.

    Args:
        width: channels.
        depth: number of blocks.
        dtype: type of the computation.
    """

    width: int = 4
    depth: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, (2, 2), 2, dtype=self.dtype, name="stem")(x)
        for _ in range(self.depth):
            y = nn.Conv(
                self.width, (3, 3), feature_group_count=self.width, dtype=self.dtype
            )(x)
            y = nn.Dense(4 * self.width, dtype=self.dtype)(nn.LayerNorm()(y))
            x = x + nn.Dense(self.width, dtype=self.dtype)(nn.gelu(y))
        return nn.LayerNorm()(x.mean((-3, -2)))


class NNXNet(nnx.Module):
    """A strided convolution and a batch norm, which has running statistics."""

    def __init__(self, width: int = 4, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 2 * width, (3, 3), 2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(2 * width, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.norm(self.conv(x))).mean((1, 2))


def nnx_net(width: int, rngs: nnx.Rngs) -> nnx.Module:
    return NNXNet(width, rngs=rngs)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dropout(0.1, deterministic=not train)(nn.Dense(4)(x.mean((1, 2))))


class NNXDropping(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(x.mean((1, 2)))


class Caching(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(4)(x.mean((1, 2)))
        self.variable("cache", "last", jnp.zeros, x.shape[-1:])
        return x


class Flattening(nn.Module):
    """Its dense layer fits images of one size only."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(4)(x.reshape(len(x), -1))


def feature_map() -> nn.Module:
    return nn.Conv(4, (3, 3))


def a_function() -> Any:
    return lambda images: images.mean((1, 2))


def without_rngs(width: int) -> nnx.Module:
    return NNXNet(width, rngs=nnx.Rngs(0))


def with_a_depth(depth: int) -> nn.Module:
    return ConvNeXt(depth=depth)


MODULE = ConvNeXt()
NNX_MODULE = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
