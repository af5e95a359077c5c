"""What sits on a backbone: projection heads, predictors, LoGo's regressor."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from logo_jax.networks.batch_norm import BatchNorm
from logo_jax.networks.layers import Linear
from logo_jax.networks.resnet import Norm


class MLP(nn.Module):
    """Linear layers, each but the last followed by an optional norm and a ReLU.

    Attributes:
        features: sizes of the layers' outputs.
        norm: constructor of the batch norms after hidden layers; None for none.
        hidden_bias: whether hidden layers have a bias (idle under a batch norm, and yet
            there in the released regressor).
        last_norm: normalise the output too, by a batch norm without scale and bias.
        dtype: of the computation; the output is float32.
    """

    features: tuple[int, ...]
    norm: Norm | None = BatchNorm
    hidden_bias: bool = True
    last_norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The last layer's output [..., features[-1]], float32."""
        *hidden, last = self.features
        for i, size in enumerate(hidden):
            x = Linear(size, self.hidden_bias, dtype=self.dtype, name=f"fc{i}")(x)
            if self.norm is not None:
                x = self.norm(dtype=self.dtype, name=f"bn{i}")(x, train=train)
            x = nn.relu(x)
        i = len(hidden)
        x = Linear(last, not self.last_norm, dtype=self.dtype, name=f"fc{i}")(x)
        if self.last_norm:
            norm = functools.partial(self.norm or BatchNorm, name=f"bn{i}")
            x = norm(use_scale=False, use_bias=False)(x, train=train)
        return x.astype(jnp.float32)


def moco_head(hidden: int, dim: int, dtype: Any = jnp.float32, **names: Any) -> MLP:
    """Linear, ReLU, Linear, no batch norm (MoCo v2's)."""
    return MLP((hidden, dim), norm=None, dtype=dtype, **names)


def simsiam_head(
    layers: int,
    hidden: int,
    dim: int,
    norm: Norm = BatchNorm,
    dtype: Any = jnp.float32,
    **names: Any,
) -> MLP:
    """SimSiam's projector: 3 layers on ImageNet, 2 on CIFAR, batch norm on all.

    Source: facebookresearch/simsiam@simsiam/builder.py; Chen & He 2021, section D.
    """
    return MLP(
        (hidden,) * (layers - 1) + (dim,),
        norm=norm,
        hidden_bias=False,
        last_norm=True,
        dtype=dtype,
        **names,
    )


def byol_head(
    hidden: int,
    dim: int,
    norm: Norm = BatchNorm,
    dtype: Any = jnp.float32,
    **names: Any,
) -> MLP:
    """BYOL's and SwAV's projector: Linear, batch norm, ReLU, Linear.

    The layer before the batch norm has no bias, which would be idle; the last one has,
    as SwAV's.

    Source: google-deepmind/deepmind-research@byol/utils/networks.py (MLP);
        facebookresearch/swav@src/resnet50.py (projection_head).
    """
    return MLP((hidden, dim), norm=norm, hidden_bias=False, dtype=dtype, **names)


def simsiam_predictor(
    hidden: int, dim: int, norm: Norm = BatchNorm, dtype: Any = jnp.float32
) -> MLP:
    """SimSiam's and BYOL's predictor: two layers, batch norm on the first.

    SimSiam's is a bottleneck; BYOL's has `hidden` far above `dim`.
    """
    return MLP((hidden, dim), norm=norm, hidden_bias=False, dtype=dtype)


class Regressor(nn.Module):
    """LoGo's judge: how much two local embeddings look like crops of one image.

    Attributes:
        width: size of each hidden layer.
        depth: number of hidden layers.
        norm: constructor of their batch norms; None for none.

    Source: ztt1024/LoGo-SSL@backbone.py (width 256, depth 2); a reproduction quotes
        width 64, depth 5 from the paper.
    """

    width: int = 256
    depth: int = 2
    norm: Norm | None = BatchNorm

    @nn.compact
    def __call__(self, pairs: jax.Array, *, train: bool) -> jax.Array:
        """Scores [...] of concatenated pairs [..., 2d]; large: from one image."""
        features = (self.width,) * self.depth + (1,)
        return MLP(features, norm=self.norm, name="mlp")(pairs, train=train)[..., 0]
