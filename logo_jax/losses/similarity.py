"""Losses on the angle between a prediction and its target."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def l2_normalize(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Scales vectors to unit length; vectors shorter than 1e-12 are divided by 1e-12.

    Source: torch.nn.functional.normalize, which has the same lower bound on the norm.

    >>> print(l2_normalize(jnp.array([3.0, 4.0])))
    [0.6 0.8]
    """
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    # The bound is applied before the square root to keep the gradient at 0 finite.
    return x / jnp.sqrt(jnp.maximum(squared, 1e-24))


def negative_cosine(
    predictions: Float[Array, "*#b d"], targets: Float[Array, "*#b d"]
) -> Float[Array, "*b"]:
    """Computes the negative cosine similarity of predictions and targets, in [-1, 1].

    Gradients flow into both arguments; wrap the targets in `jax.lax.stop_gradient` for
    SimSiam and BYOL.

    Args:
        predictions: vectors of any length.
        targets: vectors of any length; the leading axes of both are broadcast.

    Returns:
        One value per pair; -1 if the two have the same direction.

    Source: Chen & He 2021, Eq. 1, https://arxiv.org/abs/2011.10566; as in
        facebookresearch/simsiam@main_simsiam.py.

    >>> p = jnp.array([[1.0, 0.0]]); z = jnp.array([[2.0, 2.0]])
    >>> print(f"{negative_cosine(p, z).item():.4f}")              # -cos(45 degrees)
    -0.7071
    """
    predictions, targets = jnp.broadcast_arrays(predictions, targets)
    return -jnp.sum(l2_normalize(predictions) * l2_normalize(targets), axis=-1)
