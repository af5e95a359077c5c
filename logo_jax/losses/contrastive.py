"""The contrastive loss: find a view's own key among the keys of other images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def info_nce(
    queries: Float[Array, "s b d"],
    keys: Float[Array, "t b d"],
    negatives: Float[Array, "k d"],
    *,
    temperature: float,
) -> Float[Array, "s t b"]:
    """Cross-entropy of finding each query's own key among the negatives (InfoNCE).

    Args:
        queries: unit vectors, one per view and image.
        keys: unit vectors; keys[:, i] are the positives of queries[:, i].
        negatives: unit vectors of other images.
        temperature: divides similarities; dimensionless, > 0.

    Returns:
        One loss for each (query view, key view, image), in nats; log(1 + k) where all
        similarities are equal. Pairs of a view with itself are included: weigh them
        with 0.

    Raises:
        ValueError: if temperature is not positive.

    Source: He et al. 2020, Eq. 1, https://arxiv.org/abs/1911.05722; as in
        facebookresearch/moco@moco/builder.py, for all pairs of views at once.

    >>> z = jnp.ones((1, 1, 1)); n = jnp.ones((3, 1))
    >>> print(f"{info_nce(z, z, n, temperature=1.0).item():.4f}")     # log(4)
    1.3863
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive; try 0.1")
    positive = jnp.einsum("sbd,tbd->stb", queries, keys) / temperature
    similarity = jnp.einsum("sbd,kd->sbk", queries, negatives) / temperature
    negative = jax.nn.logsumexp(similarity, axis=-1)
    # softmax cross-entropy of one positive against a log-sum of negatives
    return jax.nn.softplus(negative[:, None, :] - positive)
