"""Logistic regression of all 45 strengths at once against scikit-learn, one by one.

    python benchmarks/transfer.py [--features=FILE.npz] --strengths=5

FILE has train_features, train_labels, test_features and test_labels; without it they
are Gaussian, of axes whose scales span --condition. scikit-learn is run as the
literature runs it: L-BFGS, its default tolerance, at most 5,000 iterations, in float64,
on so many of the strengths, evenly spread; its seconds for all are those times 45 over
their number. Ours solves all 45 together; its first time compiles and is told apart.

What is best is ours in float64, converged a thousand times further: a gap is an
objective's distance above it, relative, and predictions are compared with its.
"""

import argparse
import json
import statistics
import warnings

import jax
import numpy as np
import sklearn
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from turns import measure

from logo_jax.evaluation.features import Features
from logo_jax.evaluation.logistic import STRENGTHS, fit


def stored(path: str) -> tuple[Features, Features]:
    with np.load(path) as arrays:
        return tuple(
            Features(arrays[f"{part}_features"], arrays[f"{part}_labels"])
            for part in ("train", "test")
        )


def gaussian(shape: tuple[int, int, int], condition: float) -> tuple[Features, ...]:
    """Train and test of n examples, d features and c classes, all labels noisy."""
    n, d, c = shape
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    scale = np.geomspace(1, 1 / condition, d)
    features = (rng.normal(size=(2 * n, d)) * scale @ turn + 1).astype(np.float32)
    logits = (features - 1) @ turn.T / scale @ rng.normal(size=(d, c)) * 4 / d**0.5
    labels = (logits + rng.gumbel(size=(2 * n, c))).argmax(1).astype(np.int32)
    return Features(features[:n], labels[:n]), Features(features[n:], labels[n:])


def objective(data: Features, weights, biases, strength: float) -> float:
    """The sum of cross-entropies and strength/2 ||W||^2, in float64.

    Written by margins: nearly separable data lose all digits otherwise.
    """
    logits = data.features.astype(np.float64) @ np.float64(weights) + biases
    rows = np.arange(len(data.labels))
    margins = logits - logits[rows, data.labels][:, None]
    margins[rows, data.labels] = -np.inf
    others = logsumexp(margins, axis=1)
    return (
        np.logaddexp(0, others).sum() + strength / 2 * (np.float64(weights) ** 2).sum()
    )


def scikit_learns(data: Features, strength: float):
    """Seconds and the classifier, in float64."""
    classifier = LogisticRegression(C=1 / strength, max_iter=5000)
    features = data.features.astype(np.float64)
    seconds = measure(lambda: classifier.fit(features, data.labels))
    return seconds, classifier


def compare(train: Features, test: Features, chosen: np.ndarray) -> dict:
    num_classes = int(train.labels.max()) + 1
    found = []

    def ours():
        found.append(fit(train, num_classes=num_classes))

    first, seconds = measure(ours), measure(ours)
    fits = found[-1]
    best = fit(
        train,
        [STRENGTHS[i] for i in chosen],
        num_classes=num_classes,
        tolerance=1e-9,
        dtype=np.float64,
    )
    wanted = best.scores(test.features).argmax(2)
    rows = []
    for row, i in enumerate(chosen):
        least = objective(train, best.weights[row], best.biases[row], STRENGTHS[i])
        mine = objective(train, fits.weights[i], fits.biases[i], STRENGTHS[i])
        predicted = (test.features @ fits.weights[i] + fits.biases[i]).argmax(1)
        their_seconds, their = scikit_learns(train, STRENGTHS[i])
        reached = objective(train, their.coef_.T, their.intercept_, STRENGTHS[i])
        rows.append(
            {
                "strength": STRENGTHS[i],
                "iterations": int(fits.iterations[i]),
                "converged": bool(fits.converged[i]),
                "gap": mine / least - 1,
                "agreement": float((predicted == wanted[row]).mean()),
                "their_iterations": int(their.n_iter_[0]),
                "their_gap": reached / least - 1,
                "their_agreement": float(
                    (their.predict(test.features) == wanted[row]).mean()
                ),
                "their_seconds": their_seconds,
            }
        )
        print(
            "| {strength:.1e} | {iterations} | {gap:.1e} | {agreement:.4f} "
            "| {their_iterations} | {their_gap:.1e} | {their_agreement:.4f} "
            "| {their_seconds:.2f} |".format(**rows[-1]),
            flush=True,
        )
    again = measure(ours)
    their_seconds = len(STRENGTHS) * statistics.mean(r["their_seconds"] for r in rows)
    return {
        "first_seconds": first,
        "seconds": [seconds, again],
        "their_seconds": their_seconds,
        "ratio": their_seconds / statistics.mean([seconds, again]),
        "all_converged": bool(fits.converged.all()),
        "worst_gap": max(row["gap"] for row in rows),
        "worst_agreement": min(row["agreement"] for row in rows),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", default="")
    parser.add_argument("--synthetic", type=int, nargs=3, default=[600, 64, 20])
    parser.add_argument("--condition", type=float, default=1e4)
    parser.add_argument("--strengths", type=int, default=5)
    flags = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    train, test = (
        stored(flags.features)
        if flags.features
        else gaussian(tuple(flags.synthetic), flags.condition)
    )
    chosen = np.linspace(0, len(STRENGTHS) - 1, flags.strengths).round().astype(int)
    print(
        "| strength | iterations | gap | as the best | scikit-learn's | | | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    report = compare(train, test, chosen)
    print("all 45: {seconds} s (first {first_seconds:.1f})".format(**report))
    print("scikit-learn: {their_seconds:.1f} s, {ratio:.1f} times".format(**report))
    versions = {"jax": jax.__version__, "sklearn": sklearn.__version__}
    print(json.dumps({**versions, **vars(flags), **report}))


if __name__ == "__main__":
    main()
