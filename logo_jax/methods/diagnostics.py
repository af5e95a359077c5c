"""Health of embeddings: metrics that cost almost nothing.

A collapsed encoder maps all images to one point, or to a few directions; the loss may
look good nevertheless. All metrics are of unit vectors, because the losses use unit
vectors, so none depends on the norm of the embeddings.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logo_jax.losses import l2_normalize

MOST_ROWS = 256  # their Gram matrix costs under a thousandth of a usual step
ROUNDING = 1e-12  # squared distance that float32 cannot distinguish from 0
DEAD_SLOPE = 0.01  # slope of the softplus below which a score counts as saturated


def measure(views: Float[Array, "v b d"]) -> dict[str, Float[Array, ""]]:
    """Computes the health of embeddings of v views of b images, v >= 1 and b >= 2.

    Args:
        views: raw embeddings; row i of every view is of image i. Spread, rank and
            uniformity are of the first view only; alignment is of the first two views,
            if there are two.

    Returns:
        `health/std`, `health/rank`, `health/uniformity` and, for two views,
        `health/alignment`.

    >>> sorted(measure(jnp.eye(4)[None]))
    ['health/rank', 'health/std', 'health/uniformity']
    """
    views = l2_normalize(jax.lax.stop_gradient(views[:2]).astype(jnp.float32))
    centered = views[0] - views[0].mean(axis=0, keepdims=True)
    gram = centered @ centered.T
    numbers = {
        "std": relative_std(views[0]),
        "rank": effective_rank(gram),
        "uniformity": uniformity(gram),
    }
    if len(views) == 2:
        numbers["alignment"] = alignment(*views)
    return {f"health/{name}": number for name, number in numbers.items()}


def relative_std(x: Float[Array, "b d"]) -> Float[Array, ""]:
    """Computes sqrt(d) times the mean standard deviation of unit vectors' components.

    The result is 1 if the vectors are spread evenly over all directions, and 0 if all
    vectors are equal.

    Source: Chen & He 2021, Figure 2 and section 4.1, https://arxiv.org/abs/2011.10566,
        which compares the deviation with 1 / sqrt(d).

    >>> print(relative_std(jnp.ones((4, 9)) / 3))
    0.0
    """
    return jnp.std(x, axis=0).mean() * x.shape[-1] ** 0.5


def effective_rank(gram: Float[Array, "b b"]) -> Float[Array, ""]:
    """Computes the participation ratio tr(C)^2 / |C|^2, an effective rank.

    It measures over how many directions vectors spread. The result is k if k
    eigenvalues of the vectors' covariance C share its trace evenly and the others are
    0. It is 0 if all vectors are equal, and about b d / (b + d) for b random vectors of
    d independent components. It is a smooth substitute for RankMe, which needs a
    singular value decomposition, and is never larger than RankMe.

    Args:
        gram: inner products of the centered vectors (vectors from which their mean is
            subtracted). This matrix has the same nonzero eigenvalues as the covariance,
            up to a common factor, and may be much smaller.

    Source: Gao et al. 2017, Eq. 5, https://doi.org/10.1101/214262; as a measure of
        embeddings Garrido et al. 2023 (RankMe), https://arxiv.org/abs/2210.02885.

    >>> print(f"{effective_rank(jnp.eye(3)).item():.4f}")
    3.0000
    """
    trace = jnp.trace(gram)
    differ = trace > ROUNDING * len(gram)
    shares = gram / jnp.where(differ, trace, 1.0)
    return jnp.where(differ, 1 / jnp.maximum(jnp.sum(shares * shares), ROUNDING), 0.0)


def uniformity(gram: Float[Array, "b b"]) -> Float[Array, ""]:
    """Computes how evenly unit vectors spread: log mean exp(-2 |x - y|^2) over pairs.

    The result is 0 if all unit vectors are equal, and about -4 if they are spread over
    a sphere of many dimensions.

    Args:
        gram: inner products of the centered vectors (vectors from which their mean is
            subtracted), for at least two vectors. Distances do not depend on the mean.

    Source: Wang & Isola 2020, Eq. 2 at t = 2, https://arxiv.org/abs/2005.10242.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])                  # distance 2
    >>> print(f"{uniformity(x @ x.T):.4f}")
    -8.0000
    """
    count = len(gram)
    lengths = jnp.diagonal(gram)
    squared = lengths[:, None] + lengths[None] - 2 * gram
    others = ~jnp.eye(count, dtype=bool)
    total = jax.nn.logsumexp(-2 * squared, where=others)
    return total - jnp.log(float(count * (count - 1)))


def alignment(
    first: Float[Array, "b d"], second: Float[Array, "b d"]
) -> Float[Array, ""]:
    """Computes the mean squared distance of two views of an image, in [0, 4].

    The result is 0 if the two views have equal embeddings.

    Source: Wang & Isola 2020, Eq. 1 at alpha = 2, https://arxiv.org/abs/2005.10242.

    >>> print(alignment(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])))
    2.0
    """
    return jnp.sum((first - second) ** 2, axis=-1).mean()


def saturation(scores: Float[Array, "*b"]) -> Float[Array, ""]:
    """Computes the fraction of scores whose softplus has almost no gradient.

    The slope of the softplus is the sigmoid, which is below `DEAD_SLOPE` for such low
    scores. Their pairs have almost no effect on LoGo's repulsion, nor on the regressor
    if it is trained as in the paper.

    >>> print(saturation(jnp.array([-5.0, -4.0, 0.0, 9.0])))      # sigmoid(-4) = 0.018
    0.25
    """
    slopes = jax.nn.sigmoid(jax.lax.stop_gradient(scores))
    return (slopes < DEAD_SLOPE).astype(jnp.float32).mean()
