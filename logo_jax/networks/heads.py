"""Projection heads, predictors and LoGo's regressor."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from logo_jax.networks.batch_norm import BatchNorm
from logo_jax.networks.layers import Linear
from logo_jax.networks.resnet import Norm


class MLP(nn.Module):
    """Linear layers; each but the last is followed by an optional norm and a ReLU.

    Attributes:
        features: output sizes of the layers.
        norm: constructor of the norms after hidden layers; None: no norm.
        hidden_bias: whether hidden layers have a bias. Before a batch norm it has no
            effect, but the released regressor has it.
        last_norm: constructor of the norm of the output, before which the last layer
            has no bias; None: no norm.
        dtype: dtype of the computation; the output is float32.
        parts: number of equal parts of a device's images that training encodes one
            after another (`methods.multi_crop.encode`).
    """

    features: tuple[int, ...]
    norm: Norm | None = BatchNorm
    hidden_bias: bool = True
    last_norm: Norm | None = None
    dtype: Any = jnp.float32
    parts: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the last layer's output [..., features[-1]], float32."""
        *hidden, last = self.features
        for i, size in enumerate(hidden):
            x = Linear(size, self.hidden_bias, dtype=self.dtype, name=f"fc{i}")(x)
            if self.norm is not None:
                x = self.norm(dtype=self.dtype, name=f"bn{i}")(x, train=train)
            x = nn.relu(x)
        i = len(hidden)
        has_bias = self.last_norm is None
        x = Linear(last, has_bias, dtype=self.dtype, name=f"fc{i}")(x)
        if self.last_norm is not None:
            x = self.last_norm(name=f"bn{i}")(x, train=train)
        return x.astype(jnp.float32)


def moco_head(hidden: int, dim: int, dtype: Any = jnp.float32) -> MLP:
    """Returns the head of MoCo v2: Linear, ReLU, Linear, without batch norm."""
    return MLP((hidden, dim), norm=None, dtype=dtype)


def simsiam_head(
    layers: int,
    hidden: int,
    dim: int,
    norm: Norm = BatchNorm,
    dtype: Any = jnp.float32,
) -> MLP:
    """Returns SimSiam's projector, with batch norm after every layer.

    SimSiam has 3 layers on ImageNet and 2 on CIFAR. The last norm has no scale or bias.

    Source: facebookresearch/simsiam@simsiam/builder.py; Chen & He 2021, section D.
    """
    return MLP(
        (hidden,) * (layers - 1) + (dim,),
        norm=norm,
        hidden_bias=False,
        last_norm=functools.partial(norm, use_scale=False, use_bias=False),
        dtype=dtype,
    )


def byol_head(
    hidden: int, dim: int, norm: Norm = BatchNorm, dtype: Any = jnp.float32
) -> MLP:
    """Returns the projector of BYOL and SwAV: Linear, batch norm, ReLU, Linear.

    The first layer has no bias, which would have no effect before the batch norm; the
    last layer has a bias, as in SwAV.

    Source: google-deepmind/deepmind-research@byol/utils/networks.py (MLP);
        facebookresearch/swav@src/resnet50.py (projection_head).
    """
    return MLP((hidden, dim), norm=norm, hidden_bias=False, dtype=dtype)


def simsiam_predictor(
    hidden: int,
    dim: int,
    norm: Norm = BatchNorm,
    dtype: Any = jnp.float32,
    parts: int = 1,
) -> MLP:
    """Returns the predictor of SimSiam and BYOL: Linear, batch norm, ReLU, Linear.

    SimSiam's predictor is a bottleneck; in BYOL's, `hidden` is much larger than `dim`.
    """
    return MLP((hidden, dim), norm, hidden_bias=False, dtype=dtype, parts=parts)


class Regressor(nn.Module):
    """LoGo's regressor: scores whether two local embeddings are of crops of one image.

    Attributes:
        width: size of each hidden layer.
        depth: number of hidden layers.
        norm: constructor of the hidden layers' norms; None: no norm.

    Source: ztt1024/LoGo-SSL@backbone.py (width 256, depth 2); a reproduction quotes
        width 64, depth 5 from the paper.
    """

    width: int = 256
    depth: int = 2
    norm: Norm | None = BatchNorm

    @nn.compact
    def __call__(self, pairs: jax.Array, *, train: bool) -> jax.Array:
        """Returns scores [...] of concatenated pairs [..., 2d]; large for one image."""
        features = (self.width,) * self.depth + (1,)
        return MLP(features, norm=self.norm, name="mlp")(pairs, train=train)[..., 0]
