"""Cropping and resizing of an image, as small matrix products.

An image is either stored as planes Float[Array, "c h w"] with values in [0, 1],
float32, or has channels last. There are two implementations of the
same sums: `resized_crop` for accelerators, batched by `jax.vmap`, and
`resized_crop_by_blocks` for CPUs.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped


def resized_crop(
    planes: Float[Array, "c h w"], box: Float[Array, " 4"], size: int
) -> Float[Array, "c {size} {size}"]:
    """Resizes the inside of a box to size x size pixels, bilinearly with antialiasing.

    The result equals torchvision's `resized_crop(antialias=True)` on float images up to
    3e-6 and Pillow's on uint8 images up to Pillow's rounding. Pixels outside the box
    have no influence.

    Args:
        planes: one image.
        box: (top, left, height, width) in pixels, inside the image; may be traced and
            fractional.
        size: side of the output, in pixels.

    Returns:
        The resized crop, in the value range of `planes`.

    Source: the triangle filter of python-pillow/Pillow@src/libImaging/Resample.c.
    """
    _, height, width = planes.shape
    rows = triangle_weights(height, size, box[0], box[2])
    columns = triangle_weights(width, size, box[1], box[3])
    # The default precision would round to bfloat16 or TF32 on accelerators.
    return jnp.einsum("sh,chw,tw->cst", rows, planes, columns, precision="highest")


def triangle_weights(
    num_in: int,
    num_out: int,
    start: Float[Array, ""],
    extent: Float[Array, ""],
) -> Float[Array, "{num_out} {num_in}"]:
    """Returns the weights of one axis's input pixels for each output pixel.

    Rows sum to one. The triangle filter extends one input pixel to either side when
    enlarging, and one output pixel when shrinking, which avoids aliasing.

    Args:
        num_in: number of pixels of the image along the axis.
        num_out: number of pixels of the output along the axis.
        start: start of the box, in pixels.
        extent: length of the box, in pixels, > 0; only pixels that it touches get
            weight.
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
    """Returns the triangle filter's weight of each input pixel for each output pixel.

    Args:
        pixels: indices of input pixels.
        outputs: indices of output pixels.
        start: start of the box, in input pixels.
        extent: length of the box, in input pixels; pixels outside have weight 0.
        step: distance of two output pixels, in input pixels.
    """
    centers = start + (outputs.astype(jnp.float32) + 0.5) * step
    middles = pixels.astype(jnp.float32) + 0.5
    distance = jnp.abs(middles[None, :] - centers[:, None]) / jnp.maximum(step, 1.0)
    # Less than half a pixel, so that rounding does not admit a pixel past the border.
    reach = jnp.maximum(extent / 2 + 0.499, 0.5)
    inside = jnp.abs(middles - (start + extent / 2)) <= reach
    weights = jnp.where(inside[None, :], jnp.maximum(1.0 - distance, 0.0), 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def in_unit_range(
    image: Shaped[Array, "h w c"], value_range: tuple[float, float]
) -> Shaped[Array, "h w c"]:
    """Scales the values of a stored image from a range to [0, 1], and clips them.

    8 bits of the range 0..255 are returned as they are, because they are divided by 255
    later.
    """
    low, high = value_range
    if image.dtype == jnp.uint8 and (low, high) == (0, 255):
        return image
    return jnp.clip((image.astype(jnp.float32) - low) / (high - low), 0.0, 1.0)


def to_planes(image: Shaped[Array, "h w c"]) -> Float[Array, "c h w"]:
    """Converts an image to channels first and values in [0, 1].

    Args:
        image: uint8 in 0..255, or float32 in [0, 1].
    """
    planes = jnp.moveaxis(image, -1, 0).astype(jnp.float32)
    return planes / 255.0 if image.dtype == jnp.uint8 else planes


def to_channels_last(planes: Float[Array, "c h w"]) -> Float[Array, "h w c"]:
    """Converts planes to channels last."""
    return jnp.moveaxis(planes, 0, -1)
