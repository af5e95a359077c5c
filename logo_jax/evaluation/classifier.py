"""A linear classifier of features, while it is trained and after."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpy import ndarray as Numpy

from logo_jax.losses import l2_normalize


def logits(
    classifier: Mapping[str, Float[Array, "..."] | Float[Numpy, "..."]],
    features: Float[Array, "b f"] | Float[Numpy, "b f"],
) -> Float[Array, "b c"]:
    """Scores of the classes for features: their products with the weights, plus bias.

    Args:
        classifier: `kernel` [f, c] and `bias` [c].
        features: of b images.
    """
    return jnp.dot(features, classifier["kernel"]) + classifier["bias"][None]


def unit(
    features: Float[Array, "b f"] | Float[Numpy, "b f"],
) -> Float[Array, "b f"]:
    """Features at unit length, float32: what the online classifier sees."""
    return l2_normalize(jnp.asarray(features, jnp.float32))
