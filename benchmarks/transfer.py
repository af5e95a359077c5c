"""Compares logistic regression of 45 strengths in parallel with scikit-learn's.

    python -m benchmarks.transfer [--features=FILE.npz] --strengths=5

FILE has train_features, train_labels, test_features and test_labels; without FILE,
features are Gaussian, with scales of the axes that span --condition. scikit-learn runs
L-BFGS in float64, with at most 5,000 iterations, on --strengths of the 45 strengths,
evenly spread, one after another: with its default tolerance, as in the literature, and
with the first of --tolerances whose objective is within 1e-4 of the optimum, as ours
is. Its seconds for all strengths are extrapolated from these. Ours solves all 45 in
parallel; its first run includes compilation and is reported separately. Seconds are
processor time on one core.

The optimum is computed by ours in float64 with a hundred times smaller tolerance. A gap
is the relative distance of an objective above the optimum; agreement is the share of
test images with the same prediction as the optimum.
"""

import argparse
import json
import statistics
import time
import warnings
from typing import NamedTuple

import jax
import numpy as np
import sklearn
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.timing import stay_on_one_core
from logo_jax.evaluation.features import Features
from logo_jax.evaluation.logistic import STRENGTHS, fit_strengths

MAX_ITERATIONS = 5000
NEAR = 1e-4  # gap to the optimum that ours guarantees


def stored(path: str) -> tuple[Features, Features]:
    with np.load(path) as arrays:
        return tuple(
            Features(arrays[f"{part}_features"], arrays[f"{part}_labels"])
            for part in ("train", "test")
        )


def gaussian(shape: tuple[int, int, int], condition: float) -> tuple[Features, ...]:
    """Returns train and test sets of n examples, d features, c noisy classes."""
    n, d, c = shape
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    scale = np.geomspace(1, 1 / condition, d)
    features = (rng.normal(size=(2 * n, d)) * scale @ turn + 1).astype(np.float32)
    logits = (features - 1) @ turn.T / scale @ rng.normal(size=(d, c)) * 4 / d**0.5
    labels = (logits + rng.gumbel(size=(2 * n, c))).argmax(1).astype(np.int32)
    return Features(features[:n], labels[:n]), Features(features[n:], labels[n:])


def objective(data: Features, weights, biases, strength: float) -> float:
    """Returns the sum of cross-entropies plus strength / 2 ||W||^2, in float64.

    It is computed from margins, because nearly separable data would lose all digits
    otherwise.
    """
    logits = data.features.astype(np.float64) @ np.float64(weights) + biases
    rows = np.arange(len(data.labels))
    margins = logits - logits[rows, data.labels][:, None]
    margins[rows, data.labels] = -np.inf
    others = logsumexp(margins, axis=1)
    return (
        np.logaddexp(0, others).sum() + strength / 2 * (np.float64(weights) ** 2).sum()
    )


class Best(NamedTuple):
    """Least objective of a strength, and its predictions for the test images."""

    strength: float
    least: float
    predicted: np.ndarray


class Their(NamedTuple):
    """Result of scikit-learn at one tolerance."""

    tolerance: float
    iterations: int
    seconds: float
    gap: float
    agreement: float


def best_of(train: Features, test: Features, strengths: list[float]) -> list[Best]:
    found = fit_strengths(
        train,
        strengths,
        num_classes=num_classes(train),
        tolerance=1e-9,
        dtype=np.float64,
    )
    least = [
        objective(train, *classifier)
        for classifier in zip(found.weights, found.biases, strengths, strict=True)
    ]
    predicted = [scores.argmax(1) for scores in found.scores(test.features)]
    return [Best(*fields) for fields in zip(strengths, least, predicted, strict=True)]


def scikit_learns(
    train: Features, test: Features, best: Best, tolerance: float
) -> Their:
    classifier = LogisticRegression(
        C=1 / best.strength, tol=tolerance, max_iter=MAX_ITERATIONS
    )
    features = np.float64(train.features)
    start = time.process_time()
    classifier.fit(features, train.labels)
    seconds = time.process_time() - start
    weights = classifier.coef_.T, classifier.intercept_
    predicted = classifier.predict(np.float64(test.features))
    return Their(
        tolerance,
        int(classifier.n_iter_[0]),
        seconds,
        objective(train, *weights, best.strength) / best.least - 1,
        float((predicted == best.predicted).mean()),
    )


def as_close_as_ours(
    train: Features, test: Features, best: Best, tolerances: list[float]
) -> list[Their]:
    """Returns scikit-learn's results at the first and first sufficient tolerance."""
    runs: list[Their] = []
    for tolerance in tolerances:
        runs.append(scikit_learns(train, test, best, tolerance))
        if runs[-1].gap <= NEAR or runs[-1].iterations >= MAX_ITERATIONS:
            break
    return [runs[0], runs[-1]]


def num_classes(data: Features) -> int:
    return int(data.labels.max()) + 1


def compare(
    train: Features, test: Features, chosen: np.ndarray, tolerances: list[float]
) -> dict:
    seconds, fits = [], None
    for _ in range(3):
        start = time.process_time()
        fits = fit_strengths(train, num_classes=num_classes(train))
        seconds.append(time.process_time() - start)
    predictions = [scores.argmax(1) for scores in fits.scores(test.features)]
    rows = []
    for i, best in zip(
        chosen, best_of(train, test, [STRENGTHS[i] for i in chosen]), strict=True
    ):
        mine = objective(train, fits.weights[i], fits.biases[i], best.strength)
        usual, close = as_close_as_ours(train, test, best, tolerances)
        rows.append(
            {
                "strength": best.strength,
                "iterations": int(fits.iterations[i]),
                "gap": mine / best.least - 1,
                "agreement": float((predictions[i] == best.predicted).mean()),
                "sklearn": usual._asdict(),
                "sklearn_as_close": close._asdict(),
            }
        )
        show(rows[-1])
    their = {
        kind: len(STRENGTHS) * statistics.mean(row[kind]["seconds"] for row in rows)
        for kind in ("sklearn", "sklearn_as_close")
    }
    ours = statistics.mean(seconds[1:])
    return {
        "first_seconds": seconds[0],
        "seconds": seconds[1:],
        "their_seconds": their,
        "ratio": {kind: value / ours for kind, value in their.items()},
        "all_converged": bool(fits.converged.all()),
        "worst_gap": max(row["gap"] for row in rows),
        "worst_agreement": min(row["agreement"] for row in rows),
        "rows": rows,
    }


def show(row: dict) -> None:
    line = "| {strength:.1e} | {iterations} | {gap:.1e} | {agreement:.4f} "
    print(line.format(**row), end="")
    for kind in ("sklearn", "sklearn_as_close"):
        line = "| {tolerance:.0e} | {iterations} | {gap:.1e} | {agreement:.4f} "
        print((line + "| {seconds:.1f} ").format(**row[kind]), end="")
    print("|", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", default="")
    parser.add_argument("--synthetic", type=int, nargs=3, default=[600, 64, 20])
    parser.add_argument("--condition", type=float, default=1e4)
    parser.add_argument("--strengths", type=int, default=5)
    parser.add_argument(
        "--tolerances", type=float, nargs="+", default=[1e-4, 1e-6, 1e-8, 1e-10]
    )
    flags = parser.parse_args(arguments)
    stay_on_one_core()
    warnings.simplefilter("ignore", ConvergenceWarning)
    train, test = (
        stored(flags.features)
        if flags.features
        else gaussian(tuple(flags.synthetic), flags.condition)
    )
    chosen = np.linspace(0, len(STRENGTHS) - 1, flags.strengths).round().astype(int)
    their = "tolerance | iterations | gap | agreement | seconds |"
    print(f"| strength | iterations | gap | agreement | {their} {their}")
    print("|---" * 14 + "|", flush=True)
    report = compare(train, test, chosen, flags.tolerances)
    print("all 45: {seconds} s (first {first_seconds:.1f})".format(**report))
    print("scikit-learn: {their_seconds}, {ratio} times ours".format(**report))
    versions = {"jax": jax.__version__, "sklearn": sklearn.__version__}
    print(json.dumps({**versions, **vars(flags), **report}))


if __name__ == "__main__":
    main()
