"""Vision transformers as in MoCo v3, for crops of any size, without batch norm."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

xavier = nn.initializers.xavier_uniform()
# Side of the grid of patches whose positions are whole numbers, as in MoCo v3: that of
# crops of 224 px and patches of 16 px.
GRID = 14
PATCHES = "patches"  # name of the parameters that `frozen_patches` freezes
EPSILON = 1e-6  # of layer norm


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and with a shortcut.

    Attributes:
        heads: number of attention heads; divides the number of channels.
        dtype: dtype of the computation; layer norm and softmax are float32.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the block's output [b, n, c] for tokens [b, n, c]."""
        dense = functools.partial(nn.Dense, kernel_init=xavier, dtype=self.dtype)
        channels = x.shape[-1]
        # Its kernels for queries, keys and values are initialized as three matrices.
        attend = nn.MultiHeadDotProductAttention(
            self.heads,
            kernel_init=xavier,
            dtype=self.dtype,
            attention_fn=_attention,
            name="attention",
        )
        x = x + attend(_norm("norm1", x).astype(self.dtype))
        y = dense(4 * channels, name="fc1")(_norm("norm2", x).astype(self.dtype))
        return x + dense(channels, name="fc2")(nn.gelu(y, approximate=False))


def _attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Returns attention with a float32 softmax, in the dtype of its arguments.

    The attention of Flax does not convert the softmax back to bfloat16.
    """
    with jax.numpy_dtype_promotion("standard"):  # JAX promotes bfloat16 by itself
        return jax.nn.dot_product_attention(query, key, value)


def _norm(name: str, x: jax.Array) -> jax.Array:
    """Returns the layer norm of x over its last axis, float32."""
    return nn.LayerNorm(EPSILON, name=name)(x.astype(jnp.float32))


class ViT(nn.Module):
    """A vision transformer without its classifier; maps images to features.

    The features are the class token after the last layer norm.

    Attributes:
        depth: number of blocks.
        heads: number of attention heads.
        width: channels of each head.
        patch: side of the patches in pixels; divides the sides of images.
        frozen_patches: whether the projection of patches keeps its random weights.
        grid: side of the grid of patches whose positions are learned; 0: the positions
            are fixed, and images of any size are encoded.
        dtype: dtype of the computation; the features are float32.
        remat: whether only the input of each block is kept for the gradient and the
            block is computed again: less memory, a third more computation.

    Source: Chen et al. 2021, https://arxiv.org/abs/2104.02057;
        facebookresearch/moco-v3@vits.py (initialization, positions, frozen patches).
    """

    depth: int
    heads: int
    width: int = 64
    patch: int = 16
    frozen_patches: bool = False
    grid: int = 0
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns features [b, heads * width] of images [b, h, w, 3].

        Raises:
            ValueError: if `patch` does not divide h and w, or if positions are learned
                for images of another size.
        """
        channels = self.heads * self.width
        x = cut_patches(images.astype(self.dtype), self.patch)
        rows, columns = x.shape[1:3]
        # A linear layer on the pixels of a patch is a convolution with its stride.
        project = nn.Dense(channels, kernel_init=xavier, dtype=self.dtype, name=PATCHES)
        x = project(x.reshape(len(x), rows * columns, -1))
        if self.frozen_patches:
            x = jax.lax.stop_gradient(x)
        x = x + self._positions(rows, columns)[None].astype(self.dtype)
        token = self.param("token", nn.initializers.normal(1e-6), (1, 1, channels))
        token = jnp.broadcast_to(token.astype(self.dtype), (len(x), 1, channels))
        x = jnp.concatenate([token, x], axis=1)

        def run(block, x):
            return block(x)

        run_block = nn.remat(run) if self.remat else run
        for i in range(self.depth):
            x = run_block(Block(self.heads, self.dtype, name=f"block{i}"), x)
        return _norm("norm", x[:, 0])

    def _positions(self, rows: int, columns: int) -> jax.Array:
        """Returns the positions of the patches, [rows * columns, channels]."""
        channels = self.heads * self.width
        if not self.grid:
            return positions(rows, columns, channels)
        if (rows, columns) != (self.grid, self.grid):
            raise ValueError(
                f"images of {rows * self.patch}x{columns * self.patch} px do not fit "
                "the positions of this vision transformer, which were learned for "
                f"{self.grid * self.patch} px; crop the images to that size"
            )
        shape = (self.grid**2, channels)
        return self.param("positions", nn.initializers.normal(0.02), shape)


def cut_patches(images: jax.Array, side: int) -> jax.Array:
    """Cuts images [b, h, w, c] into flat patches [b, rows, columns, side * side * c].

    Raises:
        ValueError: if the side of patches does not divide h and w.
    """
    count, height, width, channels = images.shape
    require_whole_patches(height, width, side)
    rows, columns = height // side, width // side
    cut = images.reshape(count, rows, side, columns, side, channels)
    return cut.swapaxes(2, 3).reshape(count, rows, columns, side * side * channels)


def require_whole_patches(height: int, width: int, side: int) -> None:
    """Raises a ValueError unless the side of patches divides the sides of an image."""
    if height % side or width % side:
        raise ValueError(
            f"config.encoder.patch={side} must divide the sides of all crops and of "
            f"evaluated images, but one is {height}x{width} px; use e.g. "
            f"{math.gcd(height, width, side)}"
        )


def positions(rows: int, columns: int, channels: int) -> jax.Array:
    """Returns fixed positions of a grid of patches, [rows * columns, channels].

    A position is the sine and the cosine of a patch's row and of its column at
    channels / 4 frequencies. A grid of `GRID` x `GRID` patches has rows and columns 0,
    1, ..., as in MoCo v3. Grids of other sizes are stretched to the same extent: the
    same place in a crop has the same position in crops of all sizes. For this, DINO
    interpolates its learned positions; here the sines are evaluated at that place.

    Args:
        rows: number of rows of patches.
        columns: number of columns.
        channels: number of channels.

    Raises:
        ValueError: if channels is not a multiple of 4.

    Source: facebookresearch/moco-v3@vits.py (build_2d_sincos_position_embedding);
        facebookresearch/dino@vision_transformer.py (interpolate_pos_encoding).
    """
    if channels % 4:
        raise ValueError(
            f"the product of config.encoder.width and the number of heads, {channels}, "
            "must be a multiple of 4, for the positions; use e.g. width=64"
        )
    frequencies = 10_000.0 ** -(np.arange(channels // 4) / (channels // 4))
    waves = []
    for count, axis in ((rows, 0), (columns, 1)):
        places = (np.arange(count) + 0.5) * GRID / count - 0.5
        shape = (rows, columns, channels // 4)
        angle = np.expand_dims(places[:, None] * frequencies, 1 - axis)
        waves += [np.broadcast_to(wave(angle), shape) for wave in (np.sin, np.cos)]
    grid = np.concatenate(waves, axis=-1).reshape(rows * columns, channels)
    return jnp.asarray(grid, jnp.float32)


vit_mini = functools.partial(ViT, depth=4, heads=3)  # for CPUs; not published
vit_tiny = functools.partial(ViT, depth=12, heads=3)  # DeiT-Ti
vit_small = functools.partial(ViT, depth=12, heads=6)  # DeiT-S; MoCo v3 has 12 heads
