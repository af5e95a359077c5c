"""Losses of SwAV: assignment of images to prototypes, and swapped prediction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sinkhorn(
    scores: Float[Array, "n k"], *, epsilon: float, iterations: int
) -> Float[Array, "n k"]:
    """Assigns images to prototypes so that all prototypes get the same total weight.

    The assignments (codes) are exp(scores / epsilon), with columns and rows alternately
    scaled to equal sums (Sinkhorn-Knopp). The computation is in logarithms, so that
    scores of any size neither overflow nor underflow.

    Args:
        scores: similarity of n images to k prototypes.
        epsilon: smoothness of the codes: a larger value spreads each image over more
            prototypes; in units of scores, > 0.
        iterations: number of scalings of columns and rows, >= 1.

    Returns:
        One distribution over prototypes for each image: rows sum to one, and columns
        sum to n / k in the limit of many iterations.

    Raises:
        ValueError: if epsilon or iterations is not positive.

    Source: Caron et al. 2020, section 3.1, https://arxiv.org/abs/2006.09882;
        facebookresearch/swav@main_swav.py (distributed_sinkhorn).

    >>> scores = jnp.array([[1.0, 0.0], [1.0, 0.0]])  # both images prefer prototype 0
    >>> print(sinkhorn(scores, epsilon=0.05, iterations=3))
    [[0.5 0.5]
     [0.5 0.5]]
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon={epsilon} must be positive; try 0.05")
    if iterations <= 0:
        raise ValueError(f"iterations={iterations} must be positive; try 3")
    log_codes = scores / epsilon
    for _ in range(iterations):
        log_codes = jax.nn.log_softmax(log_codes, axis=0)
        log_codes = jax.nn.log_softmax(log_codes, axis=1)
    return jnp.exp(log_codes)


def swapped_prediction(
    codes: Float[Array, "t b k"], scores: Float[Array, "s b k"], *, temperature: float
) -> Float[Array, "s t b"]:
    """Computes the cross-entropy of all views' codes and all views' predictions.

    Args:
        codes: distributions over k prototypes; wrap them in `jax.lax.stop_gradient`.
        scores: similarities to the prototypes.
        temperature: divides scores; dimensionless, > 0.

    Returns:
        One loss for each (predicting view, view with a code, image), in nats; log(k) if
        all scores of the predicting view are equal.

    Raises:
        ValueError: if temperature is not positive.

    Source: Caron et al. 2020, Eq. 2, https://arxiv.org/abs/2006.09882;
        facebookresearch/swav@main_swav.py.

    >>> codes, scores = jnp.eye(4)[None], jnp.zeros((1, 4, 4))
    >>> loss = swapped_prediction(codes, scores, temperature=0.1)
    >>> print(f"{loss.mean().item():.4f}")                            # log(4)
    1.3863
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive; try 0.1")
    log_predictions = jax.nn.log_softmax(scores / temperature, axis=-1)
    return -jnp.einsum("tbk,sbk->stb", codes, log_predictions)
