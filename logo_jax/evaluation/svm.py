"""Linear support vector machines on frozen features, as VOC07 is transferred to."""

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
    """One support vector machine a class, in the order of the labels' columns.

    Attributes:
        weights: [d, c], of features of length 1.
        biases: [c].
        costs: [c], scikit-learn's C, chosen class by class.
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
    """Mean average precision on `test` of machines fitted to `train`, in [0, 1].

    Images labeled 0 (VOC's difficult ones) are negatives in `train` and not counted
    in `test`.

    Args:
        train: VOC07's train and validation together; labels [n, c] of 1, 0, -1.
        test: what is reported.
        metric: one of `metrics.SEVERAL_LABELS`: "map" for all recalls, or
            "map_11_point", VOC07's own.
        costs: values of C to choose from, by the precision on held-out thirds.
        processes: at once; -1 for one a core.

    Raises:
        ValueError: if images have one label each, or the metric is for such.

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
    """The machine of each class against the rest, its cost by cross-validation.

    Args:
        data: labels [n, c]; 1 is a positive, anything else a negative.
        costs: values of C; of those that do equally well the first.
        processes: at once; -1 for one a core.

    Raises:
        ValueError: unless labels are [n, c] and each class has an example a fold.
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
    """Weights, bias and the cost that cross-validation prefers."""
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
            f"labels {labels.shape} of one class an image are not for svm; use logistic"
        )
    few = np.flatnonzero((labels == 1).sum(0) < FOLDS)
    if len(few):
        raise ValueError(
            f"class {few[0]} is shown by fewer images than the {FOLDS} folds of "
            "cross-validation; give the whole of train and validation"
        )
