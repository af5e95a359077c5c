"""Cutting a box out of an image and resizing it, as small matrix products.

An image is planes Float[Array, "c h w"] with values in [0, 1], float32, or stored, with
channels last, in 0..255. Two forms of the same sums: `resized_crop` for accelerators,
with batches made by `jax.vmap`, and `resized_crop_by_blocks` for CPUs.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped, UInt8

_BLOCK = 8  # output pixels at a time; it divides the usual sizes of crops


def resized_crop(
    planes: Float[Array, "c h w"], box: Float[Array, " 4"], size: int
) -> Float[Array, "c {size} {size}"]:
    """Resizes the inside of a box to size x size pixels, bilinearly and antialiased.

    Equals torchvision's `resized_crop(antialias=True)` on float images to 3e-6 and
    Pillow's on uint8 images to its rounding: pixels outside the box do not bleed in.

    Args:
        planes: one image.
        box: (top, left, height, width) in pixels, inside the image; may be traced, and
            need not be whole.
        size: side of the output, in pixels.

    Returns:
        The resized cut, in the value range of `planes`.

    Source: the triangle filter of python-pillow/Pillow@src/libImaging/Resample.c.
    """
    _, height, width = planes.shape
    rows = triangle_weights(height, size, box[0], box[2])
    columns = triangle_weights(width, size, box[1], box[3])
    # Not the default precision: it rounds to bfloat16 or TF32 on accelerators.
    return jnp.einsum("sh,chw,tw->cst", rows, planes, columns, precision="highest")


def resized_crop_by_blocks(
    image: UInt8[Array, "h w c"], box: Float[Array, " 4"], size: int
) -> Float[Array, "c {size} {size}"]:
    """Resizes the inside of a box as `resized_crop` does, by sums of few pixels each.

    Much less arithmetic, in many small steps one after another: several times faster
    than `resized_crop` on a CPU, and slow on an accelerator.

    Args:
        image: stored, channels last, in 0..255.
        box: as in `resized_crop`.
        size: side of the output, in pixels.

    Returns:
        The resized cut as planes in [0, 1].
    """
    turned = _resize_first_axis(image, box[0], box[2], size)
    return _resize_first_axis(turned, box[1], box[3], size) / 255.0


def triangle_weights(
    num_in: int,
    num_out: int,
    start: Float[Array, ""],
    extent: Float[Array, ""],
) -> Float[Array, "{num_out} {num_in}"]:
    """Weighs the input pixels of one axis for each output pixel; rows sum to one.

    The triangle is one input pixel wide to either side when enlarging and one output
    pixel when shrinking, which is what antialiases.

    Args:
        num_in: pixels of the image along the axis.
        num_out: pixels of the output along the axis.
        start: where the cut begins, in pixels.
        extent: of the cut, in pixels, > 0; only pixels that it touches get weight.
    """
    pixels, outputs = jnp.arange(num_in), jnp.arange(num_out)
    return _triangle(pixels, outputs, start, extent, extent / num_out)


def _resize_first_axis(
    image: Shaped[Array, "n u v"],
    start: Float[Array, ""],
    extent: Float[Array, ""],
    num_out: int,
) -> Float[Array, "u v {num_out}"]:
    """Weighs the pixels of the first axis, block by block, and makes it the last."""
    num_in, *others = image.shape
    lines = image.reshape(num_in, -1)

    def weigh(block: tuple[Int[Array, ""], Float[Array, "o k"]]):
        first, weights = block
        touched = jax.lax.dynamic_slice_in_dim(lines, first, weights.shape[1])
        return jnp.dot(weights, touched.astype(jnp.float32), precision="highest")

    blocks = jax.lax.map(weigh, _block_weights(num_in, num_out, start, extent))
    return jnp.moveaxis(blocks.reshape(-1, *others)[:num_out], 0, -1)


def _block_weights(
    num_in: int, num_out: int, start: Float[Array, ""], extent: Float[Array, ""]
) -> tuple[Int[Array, " n"], Float[Array, "n o k"]]:
    """Returns each block's first pixel and its outputs' weights of k pixels from it."""
    longest_step = num_in / num_out
    span = (_BLOCK - 1) * longest_step + 2 * max(longest_step, 1.0)
    num_touched = min(num_in, math.ceil(span) + 1)
    step = extent / num_out

    def weights_of(first_output: Int[Array, ""]):
        outputs = jnp.minimum(first_output + jnp.arange(_BLOCK), num_out - 1)
        centre = start + (first_output.astype(jnp.float32) + 0.5) * step
        lowest = jnp.floor(centre - jnp.maximum(step, 1.0) + 0.5).astype(jnp.int32)
        first = jnp.clip(lowest, 0, num_in - num_touched)
        pixels = first + jnp.arange(num_touched)
        return first, _triangle(pixels, outputs, start, extent, step)

    return jax.vmap(weights_of)(jnp.arange(0, num_out, _BLOCK))


def _triangle(
    pixels: Int[Array, " i"],
    outputs: Int[Array, " o"],
    start: Float[Array, ""],
    extent: Float[Array, ""],
    step: Float[Array, ""],
) -> Float[Array, "o i"]:
    """Weighs pixels for outputs `step` apart, each given by its number on the axis."""
    centres = start + (outputs.astype(jnp.float32) + 0.5) * step
    middles = pixels.astype(jnp.float32) + 0.5
    distance = jnp.abs(middles[None, :] - centres[:, None]) / jnp.maximum(step, 1.0)
    # Short of half a pixel, lest rounding let in the pixel beyond an image's last.
    reach = jnp.maximum(extent / 2 + 0.499, 0.5)
    inside = jnp.abs(middles - (start + extent / 2)) <= reach
    weights = jnp.where(inside[None, :], jnp.maximum(1.0 - distance, 0.0), 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)
