"""How healthy embeddings are, in numbers that cost next to nothing.

A collapsed encoder maps all images to one point, or to a few directions: the loss may
look well meanwhile. All numbers are of unit vectors, because that is what the losses
see, and none depends on the embeddings' length.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logo_jax.losses import l2_normalize

MOST_ROWS = 256  # a Gram matrix of so many is under a thousandth of a usual step
ROUNDING = 1e-12  # squared distance at which float32 no longer tells unit vectors apart
DEAD_SLOPE = 0.01  # of a softplus: it passes on no more than this of a gradient


def measure(views: Float[Array, "v b d"]) -> dict[str, Float[Array, ""]]:
    """The health of embeddings of at least one view of each of b images, b >= 2.

    Args:
        views: raw embeddings; rows belong together. Spread, rank and uniformity are of
            the first view alone, alignment is of the first two, where there are two.

    Returns:
        `health/std`, `health/rank`, `health/uniformity` and `health/alignment`.

    >>> sorted(measure(jnp.eye(4)[None]))
    ['health/rank', 'health/std', 'health/uniformity']
    """
    views = l2_normalize(jax.lax.stop_gradient(views[:2]).astype(jnp.float32))
    centred = views[0] - views[0].mean(axis=0, keepdims=True)
    gram = centred @ centred.T
    numbers = {
        "std": relative_std(views[0]),
        "rank": effective_rank(gram),
        "uniformity": uniformity(gram),
    }
    if len(views) == 2:
        numbers["alignment"] = alignment(*views)
    return {f"health/{name}": number for name, number in numbers.items()}


def relative_std(x: Float[Array, "b d"]) -> Float[Array, ""]:
    """Mean standard deviation of the components of unit vectors, times sqrt(d).

    1 where they point everywhere alike, 0 where all are one.

    Source: Chen & He 2021, Figure 2 and section 4.1, https://arxiv.org/abs/2011.10566,
        which holds the deviation against 1 / sqrt(d).

    >>> print(relative_std(jnp.ones((4, 9)) / 3))
    0.0
    """
    return jnp.std(x, axis=0).mean() * x.shape[-1] ** 0.5


def effective_rank(gram: Float[Array, "b b"]) -> Float[Array, ""]:
    """Participation ratio tr(C)^2 / |C|^2: how many directions vectors spread over.

    k where k eigenvalues of their covariance C share its trace evenly and the others
    are 0; 0 where all vectors are one. Of b random vectors of d independent components
    about b d / (b + d). It is a smooth stand-in for RankMe, which needs a singular
    value decomposition, and never larger.

    Args:
        gram: inner products of the vectors less their mean: it has the covariance's
            eigenvalues, and may be much smaller.

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
    """Log of the mean of exp(-2 |x - y|^2) over pairs of different vectors.

    0 where all unit vectors are one, about -4 where they spread over a sphere of many
    dimensions.

    Args:
        gram: inner products of the vectors less their mean, at least two; distances do
            not feel the mean.

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
    """Mean squared distance of two views of an image, in [0, 4]; 0 where they agree.

    Source: Wang & Isola 2020, Eq. 1 at alpha = 2, https://arxiv.org/abs/2005.10242.

    >>> print(alignment(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])))
    2.0
    """
    return jnp.sum((first - second) ** 2, axis=-1).mean()


def saturation(scores: Float[Array, "*b"]) -> Float[Array, ""]:
    """Share of scores so low that softplus(score) passes on next to no gradient.

    The slope of the softplus is the sigmoid, which is below `DEAD_SLOPE` there: LoGo's
    repulsion no longer feels such a pair, nor does the regressor as the paper has it.

    >>> print(saturation(jnp.array([-5.0, -4.0, 0.0, 9.0])))      # sigmoid(-4) = 0.018
    0.25
    """
    slopes = jax.nn.sigmoid(jax.lax.stop_gradient(scores))
    return (slopes < DEAD_SLOPE).astype(jnp.float32).mean()
