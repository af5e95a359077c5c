"""What a crop looks like after its cut: colour, blur, mirroring, normalisation.

A crop is planes Float[Array, "3 h w"] in [0, 1], float32.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from logo_jax.augment import ops

Planes = Float[Array, "3 h w"]


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """How a crop is recoloured, blurred, mirrored and normalised.

    The defaults are MoCo v2's and LoGo's, without blur as on CIFAR-10, and ImageNet's
    channel statistics.

    Attributes:
        flip_prob: probability of mirroring left to right.
        jitter: strengths of brightness, contrast, saturation and hue changes.
        jitter_prob: probability of the colour jitter.
        grayscale_prob: probability of dropping colour.
        blur_prob: probability of a Gaussian blur.
        blur_sigma: its standard deviation is uniform in (min, max), in pixels.
        mean: of each channel, subtracted last; pixels are in [0, 1].
        std: of each channel, divides last.

    Raises:
        ValueError: if a field is out of range.
    """

    flip_prob: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_prob: float = 0.8
    grayscale_prob: float = 0.2
    blur_prob: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for name in ("flip_prob", "jitter_prob", "grayscale_prob", "blur_prob"):
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
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"mean={self.mean} and std={self.std} must have one value per colour, "
                "std positive; use e.g. (0.5, 0.5, 0.5) for both"
            )


def augment_crop(
    key: PRNGKeyArray, planes: Planes, spec: AugmentSpec, *, branch: bool = False
) -> Planes:
    """Jitters, greys, blurs, mirrors and normalises one crop, in MoCo v2's order.

    Args:
        key: randomness of this crop.
        planes: one crop, in [0, 1].
        spec: how often and how much; a step of probability 0 costs nothing.
        branch: whether to make only the changes that happen; else all are made, then
            taken or left, which is what `jax.vmap` needs.

    Source: facebookresearch/moco@main_moco.py, `--aug-plus`.
    """
    steps = (
        (spec.jitter_prob, lambda key, x: ops.jitter(key, x, spec.jitter)),
        (spec.grayscale_prob, lambda _, x: ops.grayscale(x)),
        (spec.blur_prob, lambda key, x: _random_blur(key, x, spec.blur_sigma)),
        (spec.flip_prob, lambda _, x: ops.flip(x)),
    )
    for step_key, step in zip(jax.random.split(key, len(steps)), steps, strict=True):
        planes = _sometimes(step_key, *step, planes, branch)
    return ops.normalize(planes, spec.mean, spec.std)


def _sometimes(
    key: PRNGKeyArray,
    probability: float,
    change: Callable[[PRNGKeyArray, Planes], Planes],
    planes: Planes,
    branch: bool,
) -> Planes:
    """Applies a change with the given probability, and not at all where that is 0."""
    if probability == 0:
        return planes
    coin_key, change_key = jax.random.split(key)
    happens = jax.random.bernoulli(coin_key, probability)
    if branch:
        return jax.lax.cond(happens, change, lambda _, same: same, change_key, planes)
    return jnp.where(happens, change(change_key, planes), planes)


def _random_blur(
    key: PRNGKeyArray, planes: Planes, sigma_range: tuple[float, float]
) -> Planes:
    low, high = sigma_range
    sigma = jax.random.uniform(key, (), minval=low, maxval=high)
    return ops.gaussian_blur(planes, sigma)


def _require_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be in [0, 1]; use e.g. 0.5")
