"""The contrastive loss InfoNCE: identify a view's own key among other images' keys."""

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
    """Computes InfoNCE: the cross-entropy of identifying a query's key among negatives.

    Only one query view's similarities [b, k] are in memory at a time, also in the
    backward pass.

    Args:
        queries: unit vectors, one per view and image.
        keys: unit vectors; keys[:, i] are the positives of queries[:, i].
        negatives: unit vectors of other images.
        temperature: divides similarities; dimensionless, > 0.

    Returns:
        One loss for each (query view, key view, image), in nats; log(1 + k) if all
        similarities are equal. The losses of a view with itself are included; give them
        weight 0.

    Raises:
        ValueError: if temperature is not positive.

    Source: He et al. 2020, Eq. 1, https://arxiv.org/abs/1911.05722; as in
        facebookresearch/moco@moco/builder.py, for all pairs of views together.

    >>> z = jnp.ones((1, 1, 1)); n = jnp.ones((3, 1))
    >>> print(f"{info_nce(z, z, n, temperature=1.0).item():.4f}")     # log(4)
    1.3863
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive; try 0.1")
    queries = queries / temperature
    positive = jnp.einsum("sbd,tbd->stb", queries, keys)
    # Views are processed one after another, and similarities are recomputed for the
    # gradient, so that only one view's similarities are in memory.
    one_view = jax.checkpoint(_log_sum_exp, prevent_cse=False)
    negative = jax.lax.map(lambda view: one_view(view, negatives), queries)
    # softmax cross-entropy of one positive against the log-sum-exp of the negatives
    return jax.nn.softplus(negative[:, None, :] - positive)


def _log_sum_exp(
    queries: Float[Array, "b d"], negatives: Float[Array, "k d"]
) -> Float[Array, " b"]:
    """Returns log(sum(exp(query @ negatives))) for each query."""
    return jax.nn.logsumexp(jnp.einsum("bd,kd->bk", queries, negatives), axis=-1)
