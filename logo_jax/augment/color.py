"""Changes of color, blur, flips, turns and normalization of one crop.

The operations equal torchvision's on float tensors. A crop is stored as planes
Float[Array, "c h w"] with values in [0, 1], float32. Three planes are red, green and
blue; saturation, hue and gray exist only for them. Use `jax.vmap` for batches. Every
color operation clips its result to [0, 1].
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

Factor = float | Float[Array, ""]

_CONTRAST, _SATURATION, _HUE = 1, 2, 3
_BLUR_RADIUS = 11  # a 23-tap kernel, SimCLR's and MoCo v2's at 224 pixels
_PRODUCTS_FROM = 64  # side in pixels from which products blur, other than on a CPU


def adjust_brightness(
    planes: Float[Array, "c h w"], factor: Factor
) -> Float[Array, "c h w"]:
    """Multiplies the image by a factor >= 0; 1 changes nothing."""
    return _blend(planes, jnp.zeros_like(planes), factor)


def adjust_contrast(
    planes: Float[Array, "c h w"], factor: Factor
) -> Float[Array, "c h w"]:
    """Changes contrast: scales differences from the image's mean gray.

    If there are other than three planes, each plane has its own mean.

    Args:
        planes: one image.
        factor: scale of the differences, >= 0; 1 changes nothing.
    """
    return _blend(planes, _mean_gray(planes), factor)


def adjust_saturation(
    planes: Float[Array, "3 h w"], factor: Factor
) -> Float[Array, "3 h w"]:
    """Changes saturation: scales differences of the channels from each pixel's gray.

    Args:
        planes: one image.
        factor: scale of the differences, >= 0; 1 changes nothing.
    """
    return _blend(planes, _luma(planes), factor)


def adjust_hue(planes: Float[Array, "3 h w"], shift: Factor) -> Float[Array, "3 h w"]:
    """Shifts every hue by `shift` of a full circle, in [-0.5, 0.5]; 0 is identity.

    The value and saturation of HSV do not change, so no conversion to HSV and back is
    needed: a channel is value - chroma * ramp(hue), with one division per pixel.

    Source: pytorch/vision@torchvision/transforms/_functional_tensor.py, `adjust_hue`;
        the inverse as in
        https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative.
    """
    red, green, blue = planes
    # Pairwise, because XLA on the CPU does not fuse a reduction over the channels.
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


def flip_vertically(planes: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """Mirrors the image top to bottom."""
    return planes[:, ::-1]


def turn(planes: Float[Array, "c s s"], turns: Int[Array, ""]) -> Float[Array, "c s s"]:
    """Turns a square image counterclockwise by 0, 1, 2 or 3 quarter turns."""
    by = [functools.partial(jnp.rot90, k=k, axes=(1, 2)) for k in range(4)]
    return jax.lax.switch(turns, by, planes)


def solarize(planes: Float[Array, "c h w"]) -> Float[Array, "c h w"]:
    """Inverts the values from 0.5 upward: x becomes 1 - x.

    Source: pytorch/vision@torchvision/transforms/_functional_tensor.py, `solarize` with
        threshold 0.5.
    """
    return jnp.where(planes >= 0.5, 1.0 - planes, planes)


def normalize(
    planes: Float[Array, "c h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "c h w"]:
    """Subtracts each channel's mean and divides by its standard deviation.

    Raises:
        ValueError: if there is not one mean and one standard deviation per channel.
    """
    if {len(mean), len(std)} != {len(planes)}:
        raise ValueError(
            f"config.augment.mean={tuple(mean)} and std={tuple(std)} must have "
            f"{len(planes)} values, one per channel; give them, or the images to "
            "measure them on"
        )
    mean_planes = jnp.asarray(mean, planes.dtype)[:, None, None]
    std_planes = jnp.asarray(std, planes.dtype)[:, None, None]
    return (planes - mean_planes) / std_planes


def gaussian_blur(
    planes: Float[Array, "c h w"], sigma: Factor
) -> Float[Array, "c h w"]:
    """Blurs with a 23 x 23 Gaussian, reflecting the image at its borders.

    Args:
        planes: one image; if a side is below 12 pixels, the kernel is cut to the radius
            that one reflection can fill.
        sigma: standard deviation in pixels, > 0; 23 taps cover values up to about 4.

    Source: pytorch/vision@torchvision/transforms/_functional_tensor.py, `gaussian_blur`
        with kernel_size 23.
    """
    return _blur_axis(_blur_axis(planes, sigma, 1), sigma, 2)


def gaussian_blur_by_products(
    planes: Float[Array, "c h w"], sigma: Factor
) -> Float[Array, "c h w"]:
    """Computes `gaussian_blur` as two matrix products, up to rounding.

    It needs more arithmetic, but no shifted copies of the image, which are slow on a
    TPU.

    Args:
        planes: one image.
        sigma: standard deviation in pixels, > 0.
    """
    rows, columns = (_blur_matrix(size, sigma) for size in planes.shape[1:])
    blurred = jnp.einsum("ij,cjk->cik", rows, planes, precision="highest")
    return jnp.einsum("lk,cik->cil", columns, blurred, precision="highest")


def jitter(
    key: PRNGKeyArray,
    planes: Float[Array, "c h w"],
    strengths: tuple[float, float, float, float],
) -> Float[Array, "c h w"]:
    """Changes brightness, contrast, saturation and hue at random, in random order.

    If there are other than three planes, only brightness and contrast are changed.

    Args:
        key: random key of this image.
        planes: one image.
        strengths: (brightness, contrast, saturation, hue). For strength s, the factors
            of the first three are uniform in [max(0, 1 - s), 1 + s], and the hue shift
            is uniform in [-s, s].

    Source: pytorch/vision@torchvision/transforms/transforms.py, ColorJitter.
    """
    factor_key, order_key = jax.random.split(key)
    *blends, hue = strengths
    low = jnp.array([max(0.0, 1.0 - s) for s in blends] + [-hue], jnp.float32)
    high = jnp.array([1.0 + s for s in blends] + [hue], jnp.float32)
    factors = jax.random.uniform(factor_key, (4,), minval=low, maxval=high)
    if len(planes) != 3:
        order = jax.random.permutation(order_key, 2)
        return _blend_all(planes, factors[order], order)
    return recolor(planes, factors, jax.random.permutation(order_key, 4))


def recolor(
    planes: Float[Array, "3 h w"], factors: Float[Array, " 4"], order: Int[Array, " 4"]
) -> Float[Array, "3 h w"]:
    """Applies the four color adjustments in a given order.

    Hue is the most expensive adjustment, and under `jax.vmap` a conditional computes
    all its branches. So the hue is shifted once, between two sequences of three blends;
    blends that belong to the other sequence have factor 1 and change nothing. This
    takes six blends and one hue shift instead of four of each.

    Args:
        planes: one image.
        factors: factors of brightness, contrast and saturation, and the hue shift.
        order: a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
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
    planes: Float[Array, "c h w"], factors: Float[Array, " n"], order: Int[Array, " n"]
) -> Float[Array, "c h w"]:
    """Applies the blends (0 brightness, 1 contrast, 2 saturation) one after another."""

    def blend(step: Int[Array, ""], planes: Float[Array, "c h w"]):
        return _blend(planes, _blend_base(planes, order[step]), factors[step])

    # A loop, because XLA on the CPU recomputes the producers of an unrolled chain.
    return jax.lax.fori_loop(0, order.size, blend, planes)


def _blend_base(
    planes: Float[Array, "c h w"], op: Int[Array, ""]
) -> Float[Array, "#c #h #w"]:
    """Returns the image that `op` blends with: black, mean gray or the gray image."""
    if len(planes) != 3:
        return jnp.where(op == _CONTRAST, _mean_gray(planes), 0.0)
    luma = _luma(planes)
    flat = jnp.where(op == _CONTRAST, jnp.mean(luma), 0.0)
    return jnp.where(op == _SATURATION, luma, flat)


def _blend(
    planes: Float[Array, "c h w"], base: Float[Array, "#c #h #w"], factor: Factor
) -> Float[Array, "c h w"]:
    return jnp.clip(factor * planes + (1.0 - factor) * base, 0.0, 1.0)


def _mean_gray(planes: Float[Array, "c h w"]) -> Float[Array, "#c 1 1"]:
    """Returns the mean of the gray image, or of each plane if they are no colors."""
    if len(planes) != 3:
        return jnp.mean(planes, axis=(1, 2), keepdims=True)
    return jnp.mean(_luma(planes), keepdims=True)


def _luma(planes: Float[Array, "3 h w"]) -> Float[Array, "1 h w"]:
    red, green, blue = planes
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[None]


def _ramp(turn: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """Returns (value - channel) / chroma of a channel.

    `turn` is the hue in full circles, shifted so that the channel's own hue is at 5/6.
    """
    # h - floor(h), because jnp.mod is several times slower on the CPU.
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
    # A barrier, because XLA on the CPU would repeat the reflection for every tap.
    padded = jax.lax.optimization_barrier(jnp.pad(planes, widths, mode="reflect"))

    def shifted(by: int) -> Float[Array, "c h w"]:
        first = radius + by
        return jax.lax.slice_in_dim(padded, first, first + size, axis=axis)

    pairs = [taps[k] * (shifted(-k) + shifted(k)) for k in range(1, radius + 1)]
    return sum(pairs, start=taps[0] * shifted(0))


def _blur_matrix(size: int, sigma: Factor) -> Float[Array, "{size} {size}"]:
    """Returns the matrix that blurs a line of pixels: a band, reflected at its ends."""
    radius, last = min(_BLUR_RADIUS, size - 1), size - 1
    places = jnp.arange(size, dtype=jnp.float32)
    to, source = places[:, None], places[None]

    def weights(distance: Float[Array, "n n"]) -> Float[Array, "n n"]:
        is_near = jnp.abs(distance) <= radius
        return jnp.where(is_near, jnp.exp(-0.5 * (distance / sigma) ** 2), 0.0)

    # a tap that leaves the line at an end reaches the pixel that is reflected there
    before = jnp.where(source > 0, weights(source + to), 0.0)
    after = jnp.where(source < last, weights(2 * last - source - to), 0.0)
    matrix = weights(source - to) + before + after
    return matrix / jnp.sum(matrix, axis=1, keepdims=True)


Planes = Float[Array, "c h w"]
BYTES = (0.0, 255.0)  # range of the values of 8 bits
# a change of one's own: a function from (key, image in [0, 1]) to an image like it
Extra = Callable[[PRNGKeyArray, Float[Array, "h w c"]], Float[Array, "h w c"]]


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """Color changes, blur, flips, turns and normalization of a crop.

    Attributes:
        flip_prob: probability of mirroring left to right.
        vertical_flip_prob: probability of mirroring top to bottom.
        quarter_turns_prob: probability of turning the crop by 0, 90, 180 or 270
            degrees, each of which is equally likely.
        jitter: strengths of brightness, contrast, saturation and hue changes, >= 0; hue
            at most 0.5. Saturation, hue and grayscale need three channels.
        jitter_prob: probability of the color jitter.
        grayscale_prob: probability of converting to grayscale.
        blur_prob: probability of a Gaussian blur.
        blur_sigma: (min, max) of the blur's standard deviation, in pixels; it is drawn
            uniformly.
        solarize_prob: probability of inverting the values from 0.5 upward.
        mean: mean of each channel, for pixels in [0, 1]; subtracted last. It is empty
            until it has been measured.
        std: standard deviation of each channel; divides last. It may be empty, too.
        value_range: the stored values that become 0 and 1; values outside of them are
            clipped.

    Raises:
        ValueError: if a field is out of range.
    """

    flip_prob: float
    vertical_flip_prob: float
    quarter_turns_prob: float
    jitter: tuple[float, float, float, float]
    jitter_prob: float
    grayscale_prob: float
    blur_prob: float
    blur_sigma: tuple[float, float]
    solarize_prob: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float]

    def __post_init__(self):
        for name in _PROBABILITIES:
            _require_probability(name, getattr(self, name))
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(
                f"jitter={self.jitter} must be four strengths >= 0, hue at most 0.5; "
                "use e.g. (0.4, 0.4, 0.4, 0.1)"
            )
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(
                f"blur_sigma={self.blur_sigma} must satisfy 0 < min <= max; "
                "use e.g. (0.1, 2.0)"
            )
        different = len({len(self.mean), len(self.std)} - {0}) > 1
        if different or min(self.std, default=1) <= 0:
            raise ValueError(
                f"mean={self.mean} and std={self.std} must have one value per channel, "
                "and std must be positive; use e.g. (0.5, 0.5, 0.5) for both"
            )
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError(
                f"value_range={self.value_range} must satisfy min < max; use e.g. "
                "(0, 4095)"
            )

    def without_changes(self) -> "AugmentSpec":
        """Returns the spec that only normalizes: all probabilities are 0."""
        return dataclasses.replace(self, **dict.fromkeys(_PROBABILITIES, 0.0))


_PROBABILITIES = tuple(
    field.name
    for field in dataclasses.fields(AugmentSpec)
    if field.name.endswith("_prob")
)


def augment_crop(
    key: PRNGKeyArray,
    planes: Planes,
    spec: AugmentSpec,
    *,
    extra: Extra | None = None,
    branch: bool = False,
) -> Planes:
    """Jitters, grays, blurs, mirrors and normalizes one crop, in MoCo v2's order.

    Before the normalization, the crop is also solarized and turned, and changed by
    `extra`, in this order.

    Args:
        key: random key of this crop.
        planes: one crop, in [0, 1]; a square if it may be turned.
        spec: probabilities and strengths; a step of probability 0 costs nothing.
        extra: a change of one's own, which is always applied: a function `(key, image)
            -> image` of float32 images [h, w, c] with values in [0, 1]; None: none.
        branch: whether to compute only the changes that are drawn. Otherwise all
            changes are computed and then selected, which is what `jax.vmap` needs.

    Source: facebookresearch/moco@main_moco.py, `--aug-plus`; the solarization after the
        blur is that of BYOL, https://arxiv.org/abs/2006.07733, appendix B.
    """
    # A new step is appended, so that the random keys of the others do not change. The
    # flips and turns may be in any order with the solarization.
    steps = (
        (spec.jitter_prob, lambda key, x: jitter(key, x, spec.jitter)),
        (spec.grayscale_prob, lambda _, x: grayscale(x)),
        (spec.blur_prob, lambda key, x: _random_blur(key, x, spec.blur_sigma, branch)),
        (spec.flip_prob, lambda _, x: flip(x)),
        (spec.solarize_prob, lambda _, x: solarize(x)),
        (spec.vertical_flip_prob, lambda _, x: flip_vertically(x)),
        (spec.quarter_turns_prob, _random_turn),
    )
    if extra is not None:
        steps = (*steps, (1.0, functools.partial(_change_by, extra)))
    for step_key, step in zip(jax.random.split(key, len(steps)), steps, strict=True):
        planes = _sometimes(step_key, *step, planes, branch)
    return normalize(planes, spec.mean, spec.std)


def _sometimes(
    key: PRNGKeyArray,
    probability: float,
    change: Callable[[PRNGKeyArray, Planes], Planes],
    planes: Planes,
    branch: bool,
) -> Planes:
    """Applies a change with a probability; a change of probability 0 is left out."""
    if probability == 0:
        return planes
    coin_key, change_key = jax.random.split(key)
    happens = jax.random.bernoulli(coin_key, probability)
    if branch:
        return jax.lax.cond(happens, change, lambda _, same: same, change_key, planes)
    return jnp.where(happens, change(change_key, planes), planes)


def _random_blur(
    key: PRNGKeyArray,
    planes: Planes,
    sigma_range: tuple[float, float],
    branch: bool,
) -> Planes:
    """Blurs by shifted images on a CPU, where `branch` is True, and if few."""
    low, high = sigma_range
    sigma = jax.random.uniform(key, (), minval=low, maxval=high)
    is_small = min(planes.shape[1:]) < _PRODUCTS_FROM
    blur = gaussian_blur if branch or is_small else gaussian_blur_by_products
    return blur(planes, sigma)


def _random_turn(key: PRNGKeyArray, planes: Planes) -> Planes:
    return turn(planes, jax.random.randint(key, (), 0, 4))


def _change_by(extra: Extra, key: PRNGKeyArray, planes: Planes) -> Planes:
    return jnp.moveaxis(extra(key, jnp.moveaxis(planes, 0, -1)), -1, 0)


def _require_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be a number from 0 to 1; use e.g. 0.5")
