"""Multinomial logistic regression on frozen features for many strengths in parallel.

The objective is the sum (not the mean) over examples of the cross-entropy, in nats,
plus the penalty strength/2 ||W||^2. Biases are not penalized. The parameter C of
scikit-learn is 1 / strength.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from logo_jax.evaluation.features import Features, require_classes
from logo_jax.evaluation.lbfgs import Problem, descend
from logo_jax.evaluation.metrics import find_metric, top1
from logo_jax.methods.linear import logits

STRENGTHS = tuple(np.logspace(-6, 5, 45).tolist())
MAX_ITERATIONS = 5000
TOLERANCE = 1e-8
REFINED = 1e-5  # factor of the tolerance for the refinement in float64
ROUNDS = (20, 60)  # iterations of the first round, and of each later round
AT_ONCE = 2**26  # maximum number of logits of a group of strengths; 256 MiB in float32


class Fits(NamedTuple):
    """Classifiers, one for each strength; logits are features @ weights + biases.

    Attributes:
        weights: float64 [s, d, c]. With a large strength the weights are so small
            compared with the mean of the features that the order of the logits would be
            lost in float32.
        biases: float64 [s, c].
        iterations: number of L-BFGS iterations, [s].
        converged: whether the estimated distance of the objective from its minimum, in
            nats, is at most the tolerance times strength/2 ||W||^2, [s].
    """

    weights: np.ndarray
    biases: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray

    def scores(self, features: np.ndarray) -> Iterator[Float[np.ndarray, "n c"]]:
        """Yields the logits of features [n, d] for each strength."""
        features = features.astype(np.float64)
        for weights, biases in zip(self.weights, self.biases, strict=True):
            yield logits({"kernel": weights, "bias": biases}, features)


class Transfer(NamedTuple):
    """Result of a transfer evaluation.

    Attributes:
        strength: regularization strength chosen on the validation part.
        value: the metric on the test part, in [0, 1].
        top1: top-1 accuracy on the test part, in [0, 1].
        converged: whether the fit of the evaluated classifier has converged.
    """

    strength: float
    value: float
    top1: float
    converged: bool


def choose_strength(
    train: Features,
    val: Features,
    test: Features,
    *,
    metric: str,
    num_classes: int,
    strengths: Sequence[float] = STRENGTHS,
    tolerance: float = TOLERANCE,
) -> Transfer:
    """Chooses a strength on val, refits on train and val, and evaluates once on test.

    Of strengths with the same value of the metric on val, the largest is taken.

    Args:
        train: features and labels that the classifiers are fitted to.
        val: features and labels by whose metric the strength is chosen.
        test: features and labels for which the result is reported.
        metric: name of a metric in `metrics.ONE_LABEL`.
        num_classes: number of classes of all three parts.
        strengths: regularization strengths to choose from, > 0.
        tolerance: largest estimated distance of the objective from its minimum, as a
            fraction of the penalty term, at which a fit has converged.

    Raises:
        ValueError: if images are multi-label, or if the metric is for multi-label
            images.

    Source: Kornblith et al. 2019, https://arxiv.org/abs/1805.08974, A.5;
        linusericsson/ssl-transfer@linear.py.
    """
    measure = find_metric(metric, several_labels=False)
    require_classes(val.labels, num_classes, "the validation images")
    require_classes(test.labels, num_classes, "the test images")
    ordered = sorted(strengths, reverse=True)
    fits = fit_strengths(train, ordered, num_classes=num_classes, tolerance=tolerance)
    on_val = [measure(scores, val.labels) for scores in fits.scores(val.features)]
    strength = ordered[int(np.argmax(on_val))]
    both = Features(*(np.concatenate(parts) for parts in zip(train, val, strict=True)))
    final = fit_strengths(
        both, [strength], num_classes=num_classes, tolerance=tolerance
    )
    (scores,) = final.scores(test.features)
    return Transfer(
        strength,
        measure(scores, test.labels),
        top1(scores, test.labels),
        bool(final.converged[0]),
    )


def fit_strengths(
    data: Features,
    strengths: Sequence[float] = STRENGTHS,
    *,
    num_classes: int,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
    dtype: Any = np.float32,
) -> Fits:
    """Fits a classifier for each strength by L-BFGS.

    Features are centered and rotated to their principal axes, and axes without variance
    are dropped; this does not change the minimum. The strengths are fitted in groups
    whose size AT_ONCE limits, and each group in rounds. A round computes the
    preconditioner at its initial weights, and the strengths that have converged
    according to it are dropped after the round. Strengths that converge in the first
    round are large: their probabilities hardly differ from the class frequencies, a
    difference that float32 does not resolve, so they are refined by a few iterations in
    float64.

    Args:
        data: features and labels, one label in [0, num_classes) per example.
        strengths: positive regularization strengths.
        num_classes: number of classes.
        tolerance: a fit has converged if its estimated gap is at most the tolerance
            times its penalty term strength/2 ||W||^2. Nearly separable data have a loss
            of almost 0, and a large strength has weights of almost 0, so that neither
            the loss nor the weights alone would be a suitable reference.
        max_iterations: maximum number of iterations for each strength.
        dtype: dtype of the computation, float32 or float64.

    Raises:
        ValueError: if an example does not have exactly one class, or if a strength is
            not positive.
    """
    require_classes(data.labels, num_classes)
    if not np.all(np.asarray(strengths) > 0):
        raise ValueError(f"strengths={tuple(strengths)} must be positive; leave out 0")
    mean, axes = _principal_axes(data.features)
    examples = np.c_[(data.features - mean) @ axes, np.ones(len(data.labels))]
    own = data.labels[:, None] == np.arange(num_classes)
    penalties = np.asarray(strengths, np.float64)
    start = np.zeros((len(penalties), examples.shape[1], num_classes))
    problem = examples, own, penalties
    fitted = _in_groups(*problem, start, tolerance, max_iterations, dtype)
    quick = fitted.converged & (fitted.iterations <= ROUNDS[0])
    rows = fitted.weights.astype(np.float64)
    if quick.any() and np.dtype(dtype) == np.float32:
        problem = examples, own, penalties[quick]
        fine = _in_groups(
            *problem, rows[quick], tolerance * REFINED, ROUNDS[0], np.float64
        )
        rows[quick] = fine.weights
        fitted.iterations[quick] += fine.iterations
    weights = axes @ rows[:, :-1]
    biases = rows[:, -1] - mean @ weights
    return Fits(weights, biases, fitted.iterations, fitted.converged)


class _Fitted(NamedTuple):
    """Fits on the principal axes; the biases are the last row of the weights."""

    weights: np.ndarray  # [s, r + 1, c]
    iterations: np.ndarray
    converged: np.ndarray


def _in_groups(
    examples: np.ndarray,
    own: np.ndarray,
    strengths: np.ndarray,
    start: np.ndarray,
    tolerance: float,
    max_iterations: int,
    dtype: Any,
) -> _Fitted:
    """Fits the strengths in as few groups as AT_ONCE allows."""
    size = max(1, AT_ONCE // own.size)
    count = -(-len(strengths) // size)
    # with float64 enabled, integers are int64 by default, but optax counts in int32
    wide = jax.enable_x64(np.dtype(dtype) == np.float64)
    with wide, jax.numpy_dtype_promotion("standard"):
        groups = [
            _in_rounds(examples.astype(dtype), own, *group, tolerance, max_iterations)
            for group in zip(
                np.array_split(strengths.astype(dtype), count),
                np.array_split(start.astype(dtype), count),
                strict=True,
            )
        ]
    return _Fitted(*map(np.concatenate, zip(*groups, strict=True)))


def _in_rounds(
    features: np.ndarray,
    own: np.ndarray,
    strengths: np.ndarray,
    weights: np.ndarray,
    tolerance: float,
    max_iterations: int,
) -> _Fitted:
    count, dtype = len(strengths), features.dtype
    penalty = np.repeat(strengths[:, None, None], features.shape[1], axis=1)
    penalty[:, -1] = 0
    examples = jnp.asarray(features), jnp.asarray(own)
    weights = weights.copy()
    iterations = np.zeros(count, np.int32)
    converged = np.zeros(count, bool)
    for steps in _rounds(max_iterations):
        rows = _unfinished(converged)
        problem = Problem(*examples, jnp.asarray(penalty[rows]))
        found = jax.device_get(
            descend(
                problem,
                jnp.asarray(weights[rows]),
                jnp.asarray(tolerance, dtype),
                jnp.asarray(steps, jnp.int32),
            )
        )
        size = (penalty[rows] * weights[rows] ** 2).sum((1, 2)) / 2
        converged[rows] = found.start_gaps <= tolerance * size
        weights[rows] = found.weights
        iterations[rows] += found.iterations
        if converged.all():
            break
    return _Fitted(weights, iterations, converged)


def _rounds(max_iterations: int) -> Iterator[int]:
    """Yields the iterations of each round; the last round only tests convergence."""
    first, later = ROUNDS
    left = max_iterations
    yield min(first, left)
    left -= min(first, left)
    while left:
        yield min(later, left)
        left -= min(later, left)
    yield 0


def _unfinished(converged: np.ndarray) -> np.ndarray:
    """Rows that have not converged, filled up with converged rows.

    The number of rows is all of them, a half, a quarter, and so on: each number of rows
    is compiled separately.
    """
    size = len(converged)
    while size // 2 >= max(1, np.count_nonzero(~converged)):
        size //= 2
    return np.argsort(converged, kind="stable")[:size]


def _principal_axes(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] of the features and principal axes [d, r] of non-zero variance, float64.

    scikit-learn's PCA finds the same axes and would need the same removal of axes
    without variance, but it has no fast solver for fewer examples than features: for
    1,000 examples of 2,048 features its solver "full" took 2.5 times and its solver
    "covariance_eigh" 4.8 times as long as this function.
    """
    mean = features.mean(0, dtype=np.float64)
    centered = features - mean
    wide = centered.shape[0] < centered.shape[1]
    variances, vectors = np.linalg.eigh(
        centered @ centered.T if wide else centered.T @ centered
    )
    negligible = variances[-1] * max(centered.shape) * np.finfo(np.float64).eps
    kept = variances > negligible
    axes = vectors[:, kept]
    return mean, centered.T @ axes / np.sqrt(variances[kept]) if wide else axes
