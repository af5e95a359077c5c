"""VOC07's linear support vector machines, for images of several labels."""

import numpy as np

from logo_jax.evaluation.features import Features
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.protocols.base import (
    EvalRequest,
    EvalResult,
    Protocol,
    feature_splits,
)


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult:
    """One machine a class, fitted to train and validation together.

    Option `metric`: one of `metrics.SEVERAL_LABELS`; default map.

    Raises:
        ValueError: where images have one label each, or the metric is for such.
    """
    # other protocols and --help do not wait for scikit-learn's import
    from logo_jax.evaluation import svm

    metric = request.options.get("metric") or "map"
    parts, _ = feature_splits(frozen)
    both = zip(parts.train, parts.val, strict=True)
    train = Features(*map(np.concatenate, both))
    value = svm.voc07_map(train, parts.test, metric=metric)
    return EvalResult(
        protocol="svm: VOC07, linear, C of each class by 3-fold average precision",
        values={f"svm/{metric}": 100 * value},
        splits={"train": len(train.labels), "test": len(parts.test.labels)},
        settings={"costs": svm.COSTS, "features": "backbone, length 1"},
    )


PROTOCOL = Protocol("svm", evaluate, reads=("metric",))
