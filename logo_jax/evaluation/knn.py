"""The weighted nearest-neighbour classifier: exact, for several settings at once."""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from logo_jax.evaluation.average_precision import mean_average_precision
from logo_jax.evaluation.features import Features
from logo_jax.losses import l2_normalize

QUERIES_AT_ONCE = 256  # bounds the table of similarities: 51 MB for a bank of 50,000


@functools.partial(jax.jit, static_argnames=("settings", "num_classes"))
def class_votes(
    queries: Float[Array, "q d"],
    bank: Float[Array, "n d"],
    labels: Int[Array, " n"] | Int[Array, "n c"],
    *,
    settings: tuple[tuple[int, float], ...],
    num_classes: int,
) -> Float[Array, "s q c"]:
    """Votes of each query's nearest neighbours, for each (k, temperature).

    A neighbour of similarity s votes for its class with exp(s / temperature).

    Args:
        queries: unit vectors.
        bank: unit vectors whose labels are known.
        labels: of the bank, in [0, num_classes); or 1 for each class that is shown.
        settings: pairs (k, temperature); k <= n.
        num_classes: classes to vote for.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4;
        facebookresearch/dino@eval_knn.py.
    """
    most = max(k for k, _ in settings)
    similarity, nearest = jax.lax.top_k(
        jnp.matmul(queries, bank.T, precision="highest"), most
    )
    classes = labels[nearest]
    if labels.ndim == 1:
        classes = jax.nn.one_hot(classes, num_classes, dtype=jnp.int32)
    classes = (classes == 1).astype(queries.dtype)
    return jnp.stack(
        [
            jnp.einsum("qk,qkc->qc", jnp.exp(similarity[:, :k] / t), classes[:, :k])
            for k, t in settings
        ]
    )


def knn_accuracy(
    train: Features,
    test: Features,
    settings: Sequence[tuple[int, float]],
    *,
    num_classes: int,
) -> dict[str, float]:
    """Accuracy of weighted kNN, in percent, by name: `k20_t0.07/top1` and `.../top5`.

    Where an image may show several classes it is `k20_t0.07/map`, the mean over classes
    of the average precision of their votes.

    Args:
        train: the bank.
        test: the queries.
        settings: pairs (k, temperature).
        num_classes: of both.

    Raises:
        ValueError: where k exceeds the bank.

    >>> bank = Features(np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> print(knn_accuracy(bank, bank, [(1, 0.1)], num_classes=2)["k1_t0.1/top1"])
    100.0
    """
    settings = tuple((int(k), float(t)) for k, t in settings)
    most = max(k for k, _ in settings)
    if most > len(train.features):
        raise ValueError(
            f"k={most} neighbours exceed the bank of {len(train.features)} examples; "
            "use a smaller k in monitor.knn or a larger bank"
        )
    bank = l2_normalize(jnp.asarray(train.features))
    votes = functools.partial(
        class_votes,
        bank=bank,
        labels=jnp.asarray(train.labels.astype(np.int32)),
        settings=settings,
        num_classes=num_classes,
    )
    measure = _top_accuracy if test.labels.ndim == 1 else _mean_average_precision
    values = 100 * measure(votes, test)
    names = ("top1", "top5") if test.labels.ndim == 1 else ("map",)
    return {
        f"k{k}_t{t:g}/{name}": float(values[i, j])
        for i, (k, t) in enumerate(settings)
        for j, name in enumerate(names)
    }


def _top_accuracy(votes: Callable, test: Features) -> np.ndarray:
    """Fractions of queries whose label is first, and among the first five, [s, 2]."""
    hits = [
        np.asarray(_hits(votes(queries), jnp.asarray(labels)))
        for queries, labels in _in_parts(test)
    ]
    return np.sum(hits, axis=0) / len(test.features)


def _mean_average_precision(votes: Callable, test: Features) -> np.ndarray:
    """Mean average precision of each setting, [s, 1]."""
    scores = [np.asarray(votes(queries)) for queries, _ in _in_parts(test)]
    return np.array(
        [
            [mean_average_precision(of_setting, test.labels)]
            for of_setting in np.concatenate(scores, axis=1)
        ]
    )


def _in_parts(test: Features) -> Iterator[tuple[jax.Array, np.ndarray]]:
    for start in range(0, len(test.features), QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        queries = l2_normalize(jnp.asarray(test.features[rows]))
        yield queries, test.labels[rows].astype(np.int32)


@jax.jit
def _hits(scores: Float[Array, "s q c"], labels: Int[Array, " q"]) -> Array:
    """How many queries have their label first, and among the first five, [s, 2]."""
    best = jax.lax.top_k(scores, min(5, scores.shape[-1]))[1]
    right = best == labels[None, :, None]
    return jnp.stack([right[..., 0].sum(-1), right.any(-1).sum(-1)], axis=-1)
