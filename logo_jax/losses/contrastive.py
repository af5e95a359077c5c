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

    One query view's similarities [b, k] are held at a time, for the gradient too.

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
    queries = queries / temperature
    positive = jnp.einsum("sbd,tbd->stb", queries, keys)
    # view after view, and again for the gradient: one view's similarities at a time
    one_view = jax.checkpoint(_log_sum_exp, prevent_cse=False)
    negative = jax.lax.map(lambda view: one_view(view, negatives), queries)
    # softmax cross-entropy of one positive against a log-sum of negatives
    return jax.nn.softplus(negative[:, None, :] - positive)


def _log_sum_exp(
    queries: Float[Array, "b d"], negatives: Float[Array, "k d"]
) -> Float[Array, " b"]:
    """Log of each query's summed exp of inner products with the negatives."""
    return jax.nn.logsumexp(jnp.einsum("bd,kd->bk", queries, negatives), axis=-1)
