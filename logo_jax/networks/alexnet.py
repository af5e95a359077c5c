"""The small AlexNet of Wang & Isola for 64 px images."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from logo_jax.networks.batch_norm import BatchNorm
from logo_jax.networks.layers import Linear, conv
from logo_jax.networks.resnet import Norm

normal_002 = nn.initializers.normal(0.02)


class SmallAlexNet(nn.Module):
    """Five convolutions and two linear layers; maps images to fc7 features.

    Attributes:
        channels: output channels of the five convolutions.
        hidden: size of fc6 and fc7, which is the size of the features.
        norm: constructor of the batch norms.
        dtype: dtype of the computation; features are float32.

    Source: SsnL/align_uniform@examples/stl10/encoder.py, up to fc7; its fc8 is the
        method's projection head here.
    """

    channels: tuple[int, ...] = (96, 192, 384, 384, 192)
    hidden: int = 4096
    norm: Norm = BatchNorm
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns features [..., hidden] of images [..., 64, 64, 3]."""
        norm = functools.partial(self.norm, dtype=self.dtype)
        x = images.astype(self.dtype)
        for i, channels in enumerate(self.channels, start=1):
            x = conv(channels, 3, 1, self.dtype, f"conv{i}", normal_002)(x)
            x = nn.relu(norm(name=f"bn{i}")(x, train=train))
            if i in (1, 2, 5):
                x = nn.max_pool(x, (3, 3), (2, 2))
        self.sow("intermediates", "block5", x)
        x = x.reshape(*x.shape[:-3], -1)
        for i in (6, 7):
            x = Linear(
                self.hidden,
                use_bias=False,
                kernel_init=normal_002,
                dtype=self.dtype,
                name=f"fc{i}",
            )(x)
            x = nn.relu(norm(name=f"bn{i}")(x, train=train))
        return x.astype(jnp.float32)
