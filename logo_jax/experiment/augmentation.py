"""The change of one's own in a config's augmentation: its import and its checks."""

from collections.abc import Iterable
from typing import cast

import jax
import jax.numpy as jnp

from logo_jax.augment.color import Extra
from logo_jax.configs import import_object
from logo_jax.experiment.config import AugmentConfig
from logo_jax.parallel.keys import make_key

FIELD = "config.augment.extra"
NUM_KEYS = 4  # random keys with which the function is tried
ROUNDING = 1e-4  # values may be this far outside [0, 1]


def load_extra(augment: AugmentConfig) -> Extra | None:
    """Returns the function of `augment.extra`; None without one.

    Raises:
        ValueError: if there is no such function.
    """
    if not isinstance(augment.extra, str):
        return augment.extra
    if not augment.extra:
        return None
    found = import_object(augment.extra, FIELD)
    if not callable(found):
        raise ValueError(
            f"{FIELD}={augment.extra!r} must be a function (key, image) -> image, not "
            f"{type(found).__name__}"
        )
    return cast(Extra, found)


def require_extra(
    augment: AugmentConfig, sides: Iterable[int], channels: int = 3
) -> None:
    """Tries the function of `augment.extra`, if there is one, on a few images.

    The images are black, white and noise, each with several random keys.

    Args:
        augment: the augment group.
        sides: sides of the crops, in pixels.
        channels: number of channels of the crops.

    Raises:
        ValueError: if there is no such function, if it raises an error, if its result
            has another shape or dtype than the image, or values outside [0, 1].
    """
    extra = load_extra(augment)
    if extra is None:
        return
    for side in sorted(set(sides)):
        try:
            _try(extra, (side, side, channels))
        except Exception as error:  # the function may raise any error
            reason = " ".join(str(error).split())
            if not isinstance(error, _WrongResultError):
                kind = type(error).__name__
                reason = f"raises {kind} for a crop of {side} px: {reason}"
            raise ValueError(f"{FIELD}={augment.extra!r} {reason}") from error


class _WrongResultError(ValueError):
    """The result of the function is not an image with values in [0, 1]."""


def _try(extra: Extra, shape: tuple[int, int, int]) -> None:
    keys = jax.random.split(make_key(0), NUM_KEYS)
    noise = jax.random.uniform(keys[0], shape)
    images = jnp.stack([jnp.zeros(shape), jnp.ones(shape), noise])
    made = jax.eval_shape(extra, keys[0], noise)
    if not isinstance(made, jax.ShapeDtypeStruct):
        raise _WrongResultError(f"must return an image, not {type(made).__name__}")
    if (made.shape, made.dtype) != (noise.shape, noise.dtype):
        raise _WrongResultError(
            f"must return an image like its argument, {noise.dtype} {list(shape)}, not "
            f"{made.dtype} {list(made.shape)}"
        )
    over_images = jax.vmap(extra, in_axes=(None, 0))
    changed = jax.jit(jax.vmap(over_images, in_axes=(0, None)))(keys, images)
    low, high = float(changed.min()), float(changed.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # also refuses NaN
        raise _WrongResultError(
            f"must return values from 0 to 1, not {low:.4g} to {high:.4g}; clip them "
            "with jax.numpy.clip(image, 0, 1)"
        )
