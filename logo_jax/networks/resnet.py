"""ResNet-18 to 152 as in torchvision, a ResNet-10, and the CIFAR stem."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from logo_jax.networks.batch_norm import BatchNorm
from logo_jax.networks.layers import conv

Norm = Callable[..., BatchNorm]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34).

    Attributes:
        features: channels of the block's convolutions.
        stride: stride of the first convolution.
        norm: constructor of the batch norms.
        zero_init: whether the last batch norm's scale is initialized to 0.
        dtype: dtype of the computation.
    """

    features: int
    stride: int
    norm: Norm
    zero_init: bool
    dtype: Any
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the block's output, with half the side if the stride is 2."""
        y = conv(self.features, 3, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train=train))
        y = conv(self.features, 3, 1, self.dtype, "conv2")(y)
        return _add_shortcut(self, x, y, "bn2", train)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the 3x3 has the stride.

    Attributes:
        features: channels of the first two convolutions; the output has four times as
            many.
        stride: stride of the 3x3 convolution.
        norm: constructor of the batch norms.
        zero_init: whether the last batch norm's scale is initialized to 0.
        dtype: dtype of the computation.
    """

    features: int
    stride: int
    norm: Norm
    zero_init: bool
    dtype: Any
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the block's output, with half the side if the stride is 2."""
        y = conv(self.features, 1, 1, self.dtype, "conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train=train))
        y = conv(self.features, 3, self.stride, self.dtype, "conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y, train=train))
        y = conv(4 * self.features, 1, 1, self.dtype, "conv3")(y)
        return _add_shortcut(self, x, y, "bn3", train)


def _add_shortcut(block, x, y, last_norm, train):
    """Normalizes y, adds x (projected if the shapes differ) and applies a ReLU."""
    y = block.norm(name=last_norm, zero_scale=block.zero_init)(y, train=train)
    if x.shape != y.shape:
        x = conv(y.shape[-1], 1, block.stride, block.dtype, "downsample_conv")(x)
        x = block.norm(name="downsample_bn")(x, train=train)
    return nn.relu(x + y)


class ResNet(nn.Module):
    """A ResNet without its classifier; maps images to globally pooled features.

    Attributes:
        stage_sizes: number of blocks in each stage.
        block: BasicBlock or Bottleneck.
        width: channels of the first stage; 64 in the paper.
        stem: "imagenet" (7x7 convolution with stride 2, max-pool) or "cifar" (3x3
            convolution, no pooling).
        zero_init_residual: whether each block is initialized to its shortcut, as in
            SimSiam.
        norm: constructor of the batch norms.
        dtype: dtype of the computation; statistics and the pooling are float32.
        remat: whether only the input of each block is kept for the gradient and the
            block is computed again: less memory, a third more computation.

    Source: torchvision.models.resnet; stem as in facebookresearch/moco's CIFAR-10
        notebook.
    """

    stage_sizes: tuple[int, ...]
    block: type[BasicBlock] | type[Bottleneck]
    width: int = 64
    stem: str = "imagenet"
    zero_init_residual: bool = False
    norm: Norm = BatchNorm
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns features [..., width * 8 * expansion] of images [..., h, w, 3]."""
        norm = functools.partial(self.norm, dtype=self.dtype)

        def run(block, x):
            return block(x, train=train)

        run_block = nn.remat(run) if self.remat else run
        x = images.astype(self.dtype)
        size, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        x = conv(self.width, size, stride, self.dtype, "conv1")(x)
        x = nn.relu(norm(name="bn1")(x, train=train))
        if self.stem == "imagenet":
            # After a ReLU, padding with 0 has the effect of padding with -inf.
            padding = [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
            x = nn.max_pool(jnp.pad(x, padding), (3, 3), (2, 2))
        for i, blocks in enumerate(self.stage_sizes):
            for j in range(blocks):
                block = self.block(
                    features=self.width * 2**i,
                    stride=2 if i > 0 and j == 0 else 1,
                    norm=norm,
                    zero_init=self.zero_init_residual,
                    dtype=self.dtype,
                    name=f"layer{i + 1}_{j}",
                )
                x = run_block(block, x)
        return x.astype(jnp.float32).mean((-3, -2))


resnet10 = functools.partial(ResNet, stage_sizes=(1, 1, 1, 1), block=BasicBlock)
resnet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
resnet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
resnet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=Bottleneck)
resnet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3), block=Bottleneck)
resnet152 = functools.partial(ResNet, stage_sizes=(3, 8, 36, 3), block=Bottleneck)
