"""Logistic regression of many strengths at once against scikit-learn, one by one.

    python benchmarks/transfer.py [--features=FILE.npz] --strengths=9

FILE has train_features, train_labels, test_features and test_labels; without it they
are Gaussian, of axes whose scales span --condition. scikit-learn solves each strength
at the loosest tolerance of a ladder that brings its objective within --gap of the least
known, which is ours in float64 and far converged; only that solve is timed. Predictions
are compared with both. Ours is timed before and after, compiled; its first solve, which
compiles, apart.

Where none reaches the gap, the tightest is timed: that row's seconds are then of
a worse solution, and its agreement says nothing of ours. See "gap" under "theirs".
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

LADDER = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


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


def scikit_learns(data: Features, strength: float, tolerance: float):
    """Seconds and the classifier, in float64."""
    classifier = LogisticRegression(C=1 / strength, tol=tolerance, max_iter=20_000)
    features = data.features.astype(np.float64)
    seconds = measure(lambda: classifier.fit(features, data.labels))
    return seconds, classifier


def down_the_ladder(train: Features, strength: float, least: float, gap: float) -> dict:
    """The loosest solve within the gap, and the most converged classifier."""
    row = {}
    for tolerance in LADDER:
        seconds, found = scikit_learns(train, strength, tolerance)
        reached = objective(train, found.coef_.T, found.intercept_, strength)
        row = {
            "seconds": seconds,
            "iterations": int(found.n_iter_[0]),
            "tolerance": tolerance,
            "gap": reached / least - 1,
            "classifier": found,
        }
        if row["gap"] <= gap:
            break
    return row


def compare(train: Features, test: Features, strengths, gap: float) -> dict:
    num_classes = int(train.labels.max()) + 1

    def ours():
        return fit(train, strengths, num_classes=num_classes)

    first = measure(ours)
    seconds = [measure(ours)]
    exact = fit(
        train, strengths, num_classes=num_classes, tolerance=1e-9, dtype=np.float64
    )
    fits = ours()
    rows = []
    for i, strength in enumerate(strengths):
        least = objective(train, exact.weights[i], exact.biases[i], strength)
        mine = objective(train, fits.weights[i], fits.biases[i], strength)
        theirs = down_the_ladder(train, strength, least, gap)
        predicted = fits.scores(test.features)[i].argmax(1)
        agreed = predicted == theirs.pop("classifier").predict(test.features)
        same = predicted == exact.scores(test.features)[i].argmax(1)
        rows.append(
            {
                "strength": strength,
                "objective": least,
                "iterations": int(fits.iterations[i]),
                "converged": bool(fits.converged[i]),
                "gap": mine / least - 1,
                "agreement": float(agreed.mean()),
                "agreement_with_exact": float(same.mean()),
                "theirs": theirs,
            }
        )
        print(
            "{strength:8.1e} {objective:12.5f} {iterations:5d} {gap:9.1e} "
            "{agreement:.4f} {agreement_with_exact:.4f}".format(**rows[-1]),
            "{iterations:6d} {gap:9.1e} {seconds:8.2f} s".format(**theirs),
            flush=True,
        )
    seconds.append(measure(ours))
    total = sum(row["theirs"]["seconds"] for row in rows)
    return {
        "first_seconds": first,
        "seconds": seconds,
        "their_seconds": total,
        "ratio": total / statistics.mean(seconds),
        "worst_gap": max(row["gap"] for row in rows),
        "worst_agreement": min(row["agreement"] for row in rows),
        "worst_agreement_with_exact": min(r["agreement_with_exact"] for r in rows),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--features", default="")
    parser.add_argument("--synthetic", type=int, nargs=3, default=[600, 64, 20])
    parser.add_argument("--condition", type=float, default=1e4)
    parser.add_argument("--strengths", type=int, default=len(STRENGTHS))
    parser.add_argument("--gap", type=float, default=1e-4)
    flags = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    train, test = (
        stored(flags.features)
        if flags.features
        else gaussian(tuple(flags.synthetic), flags.condition)
    )
    chosen = np.linspace(0, len(STRENGTHS) - 1, flags.strengths).round().astype(int)
    print("strength    objective   its       gap  agree  exact  their its, gap, time")
    report = compare(train, test, [STRENGTHS[i] for i in chosen], flags.gap)
    print("{seconds} s, scikit-learn {their_seconds:.2f} s".format(**report))
    print("{ratio:.1f}x, worst gap {worst_gap:.1e}".format(**report))
    versions = {"jax": jax.__version__, "sklearn": sklearn.__version__}
    print(json.dumps({**versions, **vars(flags), **report}))


if __name__ == "__main__":
    main()
