"""The regressor's game, and what it makes local crops do: keep apart.

A score is the regressor's raw output for one pair of local crops: large where it takes
the two for crops of one image. The regressor minimises `jensen_shannon` (released code)
or `mine_difference` (paper); the encoder minimises `different_image` of pairs that
*are* from one image, which pushes them apart.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logo_jax.losses.similarity import l2_normalize


def same_image(score: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Loss of calling pairs of one image different: softplus(-score), in nats, >= 0.

    Source: ztt1024/LoGo-SSL@trainers.py, the positive half of the regressor's loss.

    >>> print(f"{same_image(jnp.zeros(())).item():.4f}")               # log(2)
    0.6931
    """
    return jax.nn.softplus(-score)


def different_image(score: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Loss of calling pairs of two images the same: softplus(score), in nats, >= 0.

    Of a pair from one image it is LoGo's repulsion: minimised, it moves the two crops
    apart as far as the regressor finds them alike.

    Source: ztt1024/LoGo-SSL@trainers.py, the negative half of the regressor's loss.

    >>> print(f"{different_image(jnp.full((), 3.0)).item():.4f}")
    3.0486
    """
    return jax.nn.softplus(score)


def jensen_shannon(
    positive: Float[Array, "*p"], negative: Float[Array, "*n"]
) -> Float[Array, ""]:
    """Regressor's loss as released: mean same_image plus mean different_image.

    Minus this, plus log(4), is twice a lower bound on the Jensen-Shannon divergence of
    the two kinds of pairs; bounded, so the scores stay small.

    Args:
        positive: scores of pairs from one image.
        negative: scores of pairs from two images.

    Returns:
        Nats; log(4) where the regressor cannot tell the pairs apart.

    Source: ztt1024/LoGo-SSL@trainers.py; the form is f-GAN's,
        https://arxiv.org/abs/1606.00709, Table 2.

    >>> print(f"{jensen_shannon(jnp.zeros(2), jnp.zeros(2)).item():.4f}")
    1.3863
    """
    return same_image(positive).mean() + different_image(negative).mean()


def mine_difference(
    positive: Float[Array, "*p"], negative: Float[Array, "*n"]
) -> Float[Array, ""]:
    """Relaxed MINE as a loss: mean affinity of negatives minus that of positives.

    Args:
        positive: affinities f_d of pairs from one image; the paper has them >= 0
            (softplus of the score).
        negative: affinities of pairs from two images.

    Returns:
        The negative of the objective the paper maximises; unbounded below.

    Source: LoGo, Eq. 6 and supplement Eq. 4, https://arxiv.org/abs/2203.17205.

    >>> print(mine_difference(jnp.array([2.0, 4.0]), jnp.array([1.0])))
    -2.0
    """
    return negative.mean() - positive.mean()


def donsker_varadhan(
    positive: Float[Array, "*p"], negative: Float[Array, "*n"]
) -> Float[Array, ""]:
    """MINE as a loss: log mean exp of negatives' affinities minus the positives' mean.

    Never below `mine_difference` of the same arguments (Jensen), which relaxes it.

    Args:
        positive: affinities of pairs from the joint distribution.
        negative: affinities of pairs from the product of the marginals.

    Returns:
        Minus the Donsker-Varadhan lower bound on mutual information, in nats.

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
    """Cosine similarity of two local embeddings: repulsion without a regressor.

    Args:
        first: embeddings of any length.
        second: embeddings of any length.

    Returns:
        One value per pair in [-1, 1]; minimise it to push the pair apart.

    Source: the alternative the paper's Figure 2 compares its regressor with.

    >>> print(cosine_affinity(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]])))
    [0.]
    """
    return jnp.sum(l2_normalize(first) * l2_normalize(second), axis=-1)
