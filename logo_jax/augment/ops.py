"""Colour and shape operations on one image, equal to torchvision's on float tensors.

An image is planes Float[Array, "3 h w"], red, green, blue, with values in [0, 1],
float32; batches are made by `jax.vmap`. Every colour operation clips to [0, 1].
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

Factor = float | Float[Array, ""]

_CONTRAST, _SATURATION, _HUE = 1, 2, 3
_BLUR_RADIUS = 11  # a 23-tap kernel, SimCLR's and MoCo v2's at 224 pixels


def adjust_brightness(
    planes: Float[Array, "3 h w"], factor: Factor
) -> Float[Array, "3 h w"]:
    """Multiplies the image by a factor >= 0; 1 changes nothing."""
    return _blend(planes, jnp.zeros_like(planes), factor)


def adjust_contrast(
    planes: Float[Array, "3 h w"], factor: Factor
) -> Float[Array, "3 h w"]:
    """Scales distances from the image's mean grey by a factor >= 0; 1 is identity."""
    return _blend(planes, jnp.mean(_luma(planes), keepdims=True), factor)


def adjust_saturation(
    planes: Float[Array, "3 h w"], factor: Factor
) -> Float[Array, "3 h w"]:
    """Scales distances from each pixel's own grey by a factor >= 0; 1 is identity."""
    return _blend(planes, _luma(planes), factor)


def adjust_hue(planes: Float[Array, "3 h w"], shift: Factor) -> Float[Array, "3 h w"]:
    """Turns every hue by `shift` of a full circle, in [-0.5, 0.5]; 0 is identity.

    HSV's value and saturation are kept. Neither is computed: a channel is
    value - chroma * ramp(hue), so one division per pixel is enough.

    Source: pytorch/vision@torchvision/transforms/_functional_tensor.py, `adjust_hue`;
        the inverse as in https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative.
    """
    red, green, blue = planes
    # Pairwise, since XLA on the CPU does not fuse a reduction over the channels.
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1.0 / jnp.where(chroma == 0, 1.0, chroma)
    sextant = jnp.where(
        value == red,
        (green - blue) * scale,
        jnp.where(
            value == green, 2.0 + (blue - red) * scale, 4.0 + (red - green) * scale
        ),
    )
    turn = sextant / 6.0 + shift
    own_turns = jnp.array([5 / 6, 3 / 6, 1 / 6])[:, None, None]
    ramp = _ramp(turn[None] + own_turns)
    return jnp.clip(value[None] - chroma[None] * ramp, 0.0, 1.0)


def grayscale(planes: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """Replaces each channel by the luma 0.2989 r + 0.587 g + 0.114 b."""
    return jnp.broadcast_to(_luma(planes), planes.shape)


def flip(planes: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """Mirrors the image left to right."""
    return planes[:, :, ::-1]


def normalize(
    planes: Float[Array, "c h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "c h w"]:
    """Subtracts each channel's mean and divides by its standard deviation."""
    mean_planes = jnp.asarray(mean, planes.dtype)[:, None, None]
    std_planes = jnp.asarray(std, planes.dtype)[:, None, None]
    return (planes - mean_planes) / std_planes


def gaussian_blur(
    planes: Float[Array, "c h w"], sigma: Factor
) -> Float[Array, "c h w"]:
    """Blurs with a 23 x 23 Gaussian, reflecting the image at its borders.

    Args:
        planes: one image; below 12 pixels the kernel is cut to what one reflection
            can fill.
        sigma: standard deviation in pixels, > 0; 23 taps hold it up to about 4.

    Source: pytorch/vision@torchvision/transforms/_functional_tensor.py,
        `gaussian_blur` with kernel_size 23.
    """
    return _blur_axis(_blur_axis(planes, sigma, 1), sigma, 2)


def jitter(
    key: PRNGKeyArray,
    planes: Float[Array, "3 h w"],
    strengths: tuple[float, float, float, float],
) -> Float[Array, "3 h w"]:
    """Changes brightness, contrast, saturation and hue at random, in random order.

    Args:
        key: randomness of this image.
        planes: one image.
        strengths: (brightness, contrast, saturation, hue). The first three draw a
            factor from [max(0, 1 - s), 1 + s], hue a shift from [-s, s], uniformly.

    Source: pytorch/vision@torchvision/transforms/transforms.py, ColorJitter.
    """
    factor_key, order_key = jax.random.split(key)
    *blends, hue = strengths
    low = jnp.array([max(0.0, 1.0 - s) for s in blends] + [-hue], jnp.float32)
    high = jnp.array([1.0 + s for s in blends] + [hue], jnp.float32)
    factors = jax.random.uniform(factor_key, (4,), minval=low, maxval=high)
    return recolour(planes, factors, jax.random.permutation(order_key, 4))


def recolour(
    planes: Float[Array, "3 h w"], factors: Float[Array, " 4"], order: Int[Array, " 4"]
) -> Float[Array, "3 h w"]:
    """Applies the four colour adjustments in a given order.

    Args:
        planes: one image.
        factors: of brightness, contrast and saturation, and the hue shift.
        order: a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.

    Hue is the dearest step and, under vmap, a choice computes all its branches. So hue
    is turned once, between two runs of blends that idle (factor 1) where it is not
    their turn: six blends and one hue instead of four of each.
    """
    positions = jnp.arange(4)
    hue_position = jnp.argmax(order == _HUE)
    ordered = factors[order]
    before = jnp.where(positions < hue_position, ordered, 1.0)
    after = jnp.where(positions > hue_position, ordered, 1.0)
    planes = _blend_all(planes, before[:3], order[:3])
    planes = adjust_hue(planes, factors[_HUE])
    return _blend_all(planes, after[1:], order[1:])


def _blend_all(
    planes: Float[Array, "3 h w"], factors: Float[Array, " n"], order: Int[Array, " n"]
) -> Float[Array, "3 h w"]:
    """Applies the blends (0 brightness, 1 contrast, 2 saturation) one after another."""

    def blend(step: Int[Array, ""], planes: Float[Array, "3 h w"]):
        return _blend(planes, _blend_base(planes, order[step]), factors[step])

    # A loop, since XLA on the CPU recomputes the producers of an unrolled chain.
    return jax.lax.fori_loop(0, order.size, blend, planes)


def _blend_base(
    planes: Float[Array, "3 h w"], op: Int[Array, ""]
) -> Float[Array, "1 h w"]:
    """Returns what blend `op` mixes with: black, the mean grey or the grey image."""
    luma = _luma(planes)
    flat = jnp.where(op == _CONTRAST, jnp.mean(luma), 0.0)
    return jnp.where(op == _SATURATION, luma, flat)


def _blend(
    planes: Float[Array, "3 h w"], base: Float[Array, "#3 #h #w"], factor: Factor
) -> Float[Array, "3 h w"]:
    return jnp.clip(factor * planes + (1.0 - factor) * base, 0.0, 1.0)


def _luma(planes: Float[Array, "3 h w"]) -> Float[Array, "1 h w"]:
    red, green, blue = planes
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[None]


def _ramp(turn: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """How far a channel whose own hue lies at half a circle is below the value."""
    # h - floor(h) and not jnp.mod, which is several times slower on the CPU.
    sextant = 6.0 * (turn - jnp.floor(turn))
    return jnp.clip(jnp.minimum(sextant, 4.0 - sextant), 0.0, 1.0)


def _blur_axis(
    planes: Float[Array, "c h w"], sigma: Factor, axis: int
) -> Float[Array, "c h w"]:
    """Blurs along one axis: a sum of shifted images, in pairs of equal weight."""
    size = planes.shape[axis]
    radius = min(_BLUR_RADIUS, size - 1)
    taps = jnp.exp(-0.5 * (jnp.arange(radius + 1, dtype=jnp.float32) / sigma) ** 2)
    taps = taps / (2.0 * jnp.sum(taps) - taps[0])
    widths = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
    # A barrier, since XLA on the CPU would otherwise reflect anew for every tap.
    padded = jax.lax.optimization_barrier(jnp.pad(planes, widths, mode="reflect"))

    def shifted(by: int) -> Float[Array, "c h w"]:
        first = radius + by
        return jax.lax.slice_in_dim(padded, first, first + size, axis=axis)

    pairs = [taps[k] * (shifted(-k) + shifted(k)) for k in range(1, radius + 1)]
    return sum(pairs, start=taps[0] * shifted(0))
