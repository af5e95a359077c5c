"""Cutting a box out of an image and resizing it, as small matrix products.

An image is planes Float[Array, "c h w"] with values in [0, 1], float32, or stored, with
channels last, in 0..255. Two forms of the same sums: `resized_crop` for accelerators,
with batches made by `jax.vmap`, and `resized_crop_by_blocks` for CPUs.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8


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
    return triangle(pixels, outputs, start, extent, extent / num_out)


def triangle(
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


def to_planes(image: UInt8[Array, "h w 3"]) -> Float[Array, "3 h w"]:
    """Scales a stored image to [0, 1], channels first."""
    return jnp.moveaxis(image, -1, 0).astype(jnp.float32) / 255.0


def to_channels_last(planes: Float[Array, "3 h w"]) -> Float[Array, "h w 3"]:
    """Puts the channels of planes last."""
    return jnp.moveaxis(planes, 0, -1)
