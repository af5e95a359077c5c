"""A linear classifier of features: what it says, and how often it is right."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
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


def top_k(
    scores: Float[Array, "b c"] | Float[Numpy, "b c"], labels: Int[Numpy, " b"], k: int
) -> float:
    """Percent of images whose class is among the k with the highest scores.

    Classes with the same score come in their own order.

    Args:
        scores: of each class; more classes than labels know do no harm.
        labels: the right class of each; one that has no score is never among the k.
        k: of c classes; all of them where there are fewer.

    >>> scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]], np.float32)
    >>> top_k(scores, np.array([2, 0]), 1), top_k(scores, np.array([2, 0]), 2)
    (50.0, 100.0)
    """
    best = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    return 100 * float((best == labels[:, None]).any(axis=1).mean())
