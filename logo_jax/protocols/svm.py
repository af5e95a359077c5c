"""Protocol svm: linear support vector machines of VOC07, for multi-label images."""

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
    """Evaluates one SVM per class, fitted to training and validation parts together.

    The option `metric` is a name in `metrics.SEVERAL_LABELS`; the default is "map".

    Raises:
        ValueError: if images have one label each, or if the metric is for images with
            one label.
    """
    # imported here, so that other protocols and --help need not import scikit-learn
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
