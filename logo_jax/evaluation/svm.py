"""Linear support vector machines on frozen features, for transfer to VOC07."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from joblib import Parallel, delayed
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from logo_jax.evaluation.features import Features
from logo_jax.evaluation.metrics import find_metric
from logo_jax.methods.linear import logits

COSTS = (0.01, 0.1, *(0.5**n for n in range(4, 20)))
FOLDS = 3
_AS_RELEASED: Mapping[str, Any] = {
    "class_weight": {True: 2, False: 1},
    "penalty": "l2",
    "loss": "squared_hinge",
    "dual": True,
    "tol": 1e-4,
    "max_iter": 2000,
    "intercept_scaling": 1.0,
    "random_state": 0,
}


class Machines(NamedTuple):
    """One support vector machine per class, in the order of the columns of the labels.

    Attributes:
        weights: weights for features normalized to length 1, [d, c].
        biases: biases, [c].
        costs: chosen cost of each class, the parameter C of scikit-learn, [c].
    """

    weights: np.ndarray
    biases: np.ndarray
    costs: np.ndarray


def voc07_map(
    train: Features,
    test: Features,
    *,
    metric: str = "map",
    costs: Sequence[float] = COSTS,
    processes: int = -1,
) -> float:
    """Fits SVMs to `train` and returns the mean average precision on `test`, in [0, 1].

    Images labeled 0 (marked as difficult in VOC) are negatives in `train` and are not
    counted in `test`.

    Args:
        train: training and validation part of VOC07 together; labels [n, c] with values
            1, 0 and -1.
        test: features and labels for which the result is reported.
        metric: name of a metric in `metrics.SEVERAL_LABELS`: "map", which uses all
            recalls, or "map_11_point", the official metric of VOC07.
        costs: values of C to choose from by 3-fold cross-validation, with the average
            precision as criterion.
        processes: number of parallel processes; -1: one per core.

    Raises:
        ValueError: if images have one label each, or if the metric is for images with
            one label.

    Source: Goyal et al. 2019, https://arxiv.org/abs/1905.01235;
        facebookresearch/fair_self_supervision_benchmark@tools/svm.
    """
    measure = find_metric(metric, several_labels=True)
    machines = fit_svms(train, costs=costs, processes=processes)
    classifier = {"kernel": machines.weights, "bias": machines.biases}
    return measure(logits(classifier, _unit_rows(test.features)), test.labels)


def fit_svms(
    data: Features, *, costs: Sequence[float] = COSTS, processes: int = -1
) -> Machines:
    """Fits one SVM per class against the rest, with its cost from cross-validation.

    Args:
        data: features and labels [n, c]; label 1 is a positive, all others a negative.
        costs: values of C to choose from; the first of those with equal precision is
            taken.
        processes: number of parallel processes; -1: one per core.

    Raises:
        ValueError: unless labels are [n, c] and each class has at least FOLDS
            positives.
    """
    _require_positives(data.labels)
    features = _unit_rows(data.features)
    fitted = Parallel(n_jobs=processes)(
        delayed(_one_class)(features, shown, tuple(costs))
        for shown in (data.labels == 1).T
    )
    weights, biases, chosen = zip(*fitted, strict=True)
    return Machines(np.stack(weights, axis=1), np.array(biases), np.array(chosen))


def _one_class(
    features: Float[np.ndarray, "n d"], shown: np.ndarray, costs: tuple[float, ...]
) -> tuple[np.ndarray, float, float]:
    """Returns the weights and the bias of one class's SVM, and the chosen cost.

    Args:
        features: features of unit length.
        shown: bool [n], whether an image shows the class.
        costs: values of C; the one with the best average precision in cross-validation
            is chosen.
    """
    precisions = [
        cross_val_score(
            _machine(cost), features, shown, cv=FOLDS, scoring="average_precision"
        ).mean()
        for cost in costs
    ]
    cost = costs[int(np.argmax(precisions))]
    machine = _machine(cost).fit(features, shown)
    return machine.coef_[0], np.ravel(machine.intercept_).item(), cost


def _machine(cost: float) -> LinearSVC:
    return LinearSVC(C=cost, **_AS_RELEASED)


def _unit_rows(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / (length + 1e-5)


def _require_positives(labels: Int[np.ndarray, "..."]) -> None:
    if labels.ndim != 2:
        raise ValueError(
            f"svm needs labels [n, c] of multi-label images, got shape {labels.shape}; "
            "use logistic regression (--protocol=transfer) for one class per image"
        )
    few = np.flatnonzero((labels == 1).sum(0) < FOLDS)
    if len(few):
        raise ValueError(
            f"class {few[0]} is shown by fewer images than the {FOLDS} folds of "
            "cross-validation; give the complete training and validation parts"
        )
