"""Losses of LoGo's regressor, and the repulsion of local crops that it defines.

A score is the regressor's raw output for a pair of local crops; it is large if the
regressor predicts that both are crops of one image. The regressor minimizes
`jensen_shannon` (released code) or `mine_difference` (paper). The encoder minimizes
`different_image` on pairs of crops of one image, which pushes the two crops apart.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logo_jax.losses.similarity import negative_cosine


def same_image(score: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Computes softplus(-score), the loss of pairs of one image; in nats, >= 0.

    Source: ztt1024/LoGo-SSL@trainers.py, the positive half of the regressor's loss.

    >>> print(f"{same_image(jnp.zeros(())).item():.4f}")               # log(2)
    0.6931
    """
    return jax.nn.softplus(-score)


def different_image(score: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Computes softplus(score), the loss of pairs of two images; in nats, >= 0.

    Applied to pairs of one image, it is LoGo's repulsion: minimizing it moves the two
    crops apart, with a larger gradient the more similar the regressor finds them.

    Source: ztt1024/LoGo-SSL@trainers.py, the negative half of the regressor's loss.

    >>> print(f"{different_image(jnp.full((), 3.0)).item():.4f}")
    3.0486
    """
    return jax.nn.softplus(score)


def jensen_shannon(
    positive: Float[Array, "*p"], negative: Float[Array, "*n"]
) -> Float[Array, ""]:
    """Computes the released regressor loss: mean same_image plus mean different_image.

    log(4) minus this loss is twice a lower bound on the Jensen-Shannon divergence of
    the two distributions of pairs. The loss is bounded below, so scores stay small.

    Args:
        positive: scores of pairs of one image.
        negative: scores of pairs of two images.

    Returns:
        The loss in nats; log(4) if the regressor cannot distinguish the two kinds of
        pairs.

    Source: ztt1024/LoGo-SSL@trainers.py; the form is that of f-GAN,
        https://arxiv.org/abs/1606.00709, Table 2.

    >>> print(f"{jensen_shannon(jnp.zeros(2), jnp.zeros(2)).item():.4f}")
    1.3863
    """
    return same_image(positive).mean() + different_image(negative).mean()


def mine_difference(
    positive: Float[Array, "*p"], negative: Float[Array, "*n"]
) -> Float[Array, ""]:
    """Computes relaxed MINE as a loss: mean negative minus mean positive affinity.

    Args:
        positive: affinities f_d of pairs of one image; in the paper they are >= 0 (the
            softplus of the score).
        negative: affinities of pairs of two images.

    Returns:
        The negative of the objective that the paper maximizes; it is unbounded below.

    Source: LoGo, Eq. 6 and supplement Eq. 4, https://arxiv.org/abs/2203.17205.

    >>> print(mine_difference(jnp.array([2.0, 4.0]), jnp.array([1.0])))
    -2.0
    """
    return negative.mean() - positive.mean()


def donsker_varadhan(
    positive: Float[Array, "*p"], negative: Float[Array, "*n"]
) -> Float[Array, ""]:
    """Computes MINE as a loss: log-mean-exp of negatives minus mean of positives.

    By Jensen's inequality it is never below its relaxation `mine_difference` of the
    same arguments.

    Args:
        positive: affinities of pairs from the joint distribution.
        negative: affinities of pairs from the product of the marginals.

    Returns:
        The negative of the Donsker-Varadhan lower bound on mutual information, in nats.

    Source: LoGo, supplement Eq. 2; Belghazi et al. 2018, Eq. 5,
        https://arxiv.org/abs/1801.04062.

    >>> print(donsker_varadhan(jnp.array([2.0, 4.0]), jnp.array([1.0, 1.0])))
    -2.0
    """
    log_mean_exp = jax.nn.logsumexp(negative) - jnp.log(negative.size)
    return log_mean_exp - positive.mean()


def cosine_affinity(
    first: Float[Array, "*#b d"], second: Float[Array, "*#b d"]
) -> Float[Array, "*b"]:
    """Computes the cosine similarity of two local embeddings, which needs no regressor.

    Args:
        first: embeddings of any length.
        second: embeddings of any length.

    Returns:
        One value per pair in [-1, 1]; minimize it to push the pair apart.

    Source: LoGo, Figure 2, which compares the regressor with this alternative.

    >>> print(cosine_affinity(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]])))
    [0.]
    """
    return -negative_cosine(first, second)
