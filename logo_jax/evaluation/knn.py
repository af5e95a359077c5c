"""Weighted nearest-neighbor classifier, evaluated for several settings together."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from logo_jax.evaluation.features import Features
from logo_jax.evaluation.metrics import UNRANKED, label_rank, mean_average_precision
from logo_jax.evaluation.nearest_neighbors import (
    QUERIES_AT_ONCE,
    Bank,
    make_bank,
    nearest,
)
from logo_jax.losses import l2_normalize
from logo_jax.parallel.mesh import replicate

COLDEST = 0.0125  # lowest temperature; sums of exp(1 / COLDEST) are finite in float32

Settings = tuple[tuple[int, float], ...]


def class_votes(
    similarity: Float[Array, "q k"],
    labels: Int[Array, "q k"] | Int[Array, "q k c"],
    *,
    settings: Settings,
    num_classes: int,
) -> Float[Array, "s q c"]:
    """Returns the votes of each query's nearest neighbors, for each (k, temperature).

    A neighbor with similarity s votes for its class with weight exp(s / temperature).

    Args:
        similarity: similarities of the neighbors to the query, in descending order.
        labels: classes of the neighbors, in [0, num_classes); or, for multi-label
            images, 1 for each class that the neighbor shows.
        settings: pairs (number of neighbors, temperature).
        num_classes: number of classes.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4;
        facebookresearch/dino@eval_knn.py.
    """
    if labels.ndim == 2:
        labels = jax.nn.one_hot(labels, num_classes, dtype=jnp.int32)
    shows = (labels == 1).astype(similarity.dtype)
    # by default, a GPU or TPU rounds the factors of a product to fewer bits
    votes = functools.partial(jnp.einsum, "qk,qkc->qc", precision="highest")
    return jnp.stack(
        [votes(jnp.exp(similarity[:, :k] / t), shows[:, :k]) for k, t in settings]
    )


def knn_accuracy(
    train: Features,
    test: Features,
    settings: Sequence[tuple[int, float]],
    *,
    num_classes: int,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Returns weighted kNN accuracies in percent: `k20_t0.07/top1`, `k20_t0.07/top5`.

    With k < 5, classes without a vote are not among the top five. With larger k they
    are, in the order of their numbers, if fewer than five classes have votes, as in the
    LoGo authors' evaluation. For multi-label images it returns `k20_t0.07/map`, the
    mean over classes of the average precision of the votes.

    Args:
        train: features and labels of the bank.
        test: features and labels of the queries.
        settings: pairs (k, temperature).
        num_classes: number of classes of the bank and the queries.
        mesh: devices that share the search; None: this process's first device. If the
            devices belong to several processes, each process calls this function with
            all features.

    Raises:
        ValueError: if k exceeds the size of the bank, if a temperature is below
            COLDEST, or if an image has no label.

    >>> bank = Features(np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> print(knn_accuracy(bank, bank, [(1, 0.1)], num_classes=2)["k1_t0.1/top1"])
    100.0
    """
    settings = tuple((int(k), float(t)) for k, t in settings)
    if min(t for _, t in settings) < COLDEST:
        raise ValueError(
            f"kNN settings={settings} must have temperatures of {COLDEST} or more: "
            "at lower temperatures votes overflow"
        )
    most = max(k for k, _ in settings)
    if most > len(train.features):
        raise ValueError(
            f"k={most} exceeds the {len(train.features)} examples of the bank; "
            "use a smaller k in monitor.knn or a larger bank"
        )
    if test.labels.ndim == 1 and min(test.labels.min(), train.labels.min()) < 0:
        raise ValueError(
            "kNN needs a label for every image, but some labels are -1, as for a test "
            "set with hidden labels; evaluate on a labeled split"
        )
    if mesh is None:
        mesh = Mesh(np.array(jax.local_devices()[:1]), ("data",))
    votes = _votes_by_tile(make_bank(train, mesh), test, settings, num_classes)
    if test.labels.ndim == 1:
        values = _top_accuracy(votes, test, settings)
    else:
        values = _mean_average_precision(votes, test)
    names = accuracy_names(settings, several_labels=test.labels.ndim > 1)
    percent = (100 * float(value) for value in values.ravel())
    return dict(zip(names, percent, strict=True))


def accuracy_names(
    settings: Sequence[tuple[int, float]], *, several_labels: bool
) -> list[str]:
    """Returns the names of the accuracies that `knn_accuracy` returns.

    Args:
        settings: pairs (k, temperature).
        several_labels: whether images have several labels.

    >>> accuracy_names([(20, 0.07)], several_labels=False)
    ['k20_t0.07/top1', 'k20_t0.07/top5']
    """
    kinds = ("map",) if several_labels else ("top1", "top5")
    return [f"k{k}_t{t:g}/{kind}" for k, t in settings for kind in kinds]


@functools.partial(jax.jit, static_argnames=("mesh", "settings", "num_classes"))
def _votes(queries, tiles, labels, *, mesh, settings, num_classes):
    bank = Bank(tiles, labels, mesh)
    most = max(k for k, _ in settings)
    similarity, rows = nearest(l2_normalize(queries), bank, most)
    votes = class_votes(
        similarity, labels[rows], settings=settings, num_classes=num_classes
    )
    return jax.lax.with_sharding_constraint(votes, NamedSharding(mesh, P()))


def _votes_by_tile(
    bank: Bank, test: Features, settings: Settings, num_classes: int
) -> Iterator[Float[Array, "s q c"]]:
    """Yields votes for QUERIES_AT_ONCE queries at a time; the last are zero-padded."""
    for start in range(0, len(test.features), QUERIES_AT_ONCE):
        queries = _filled(test.features[start : start + QUERIES_AT_ONCE], 0)
        yield _votes(
            replicate(queries, bank.mesh),
            bank.tiles,
            bank.labels,
            mesh=bank.mesh,
            settings=settings,
            num_classes=num_classes,
        )


@functools.partial(jax.jit, static_argnames="settings")
def _hits(votes, labels, *, settings):
    """Number of queries with a top-1 and with a top-5 hit, [s, 2]."""
    own = jnp.take_along_axis(votes, labels[None, :, None], axis=-1)[..., 0]
    few = np.array([[k < 5] for k, _ in settings])
    rank = jnp.where(few & (own <= 0), UNRANKED, label_rank(votes, labels))
    return jnp.stack([(rank < k).sum(-1) for k in (1, 5)], axis=-1)


def _top_accuracy(
    votes: Iterator[jax.Array], test: Features, settings: Settings
) -> np.ndarray:
    """Top-1 and top-5 accuracies of each setting, in [0, 1], [s, 2]."""
    hits = np.zeros(())
    for i, scores in enumerate(votes):
        labels = test.labels[i * QUERIES_AT_ONCE : (i + 1) * QUERIES_AT_ONCE]
        labels = _filled(labels.astype(np.int32), -1)
        hits = hits + np.asarray(_hits(scores, labels, settings=settings))
    return hits / len(test.features)


def _mean_average_precision(votes: Iterator[jax.Array], test: Features) -> np.ndarray:
    """Mean average precision of each setting, in [0, 1], [s, 1]."""
    scores = np.concatenate([np.asarray(scores) for scores in votes], axis=1)
    size = len(test.features)
    return np.array(
        [[mean_average_precision(each[:size], test.labels)] for each in scores]
    )


def _filled(x: np.ndarray, value: int) -> np.ndarray:
    """Pads x to QUERIES_AT_ONCE rows, so that only one shape is compiled."""
    padding = [(0, QUERIES_AT_ONCE - len(x))] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, padding, constant_values=value)
