"""Protocol transfer: logistic regression on frozen features."""

from logo_jax.evaluation import logistic
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.protocols.base import (
    LABELS,
    EvalRequest,
    EvalResult,
    Protocol,
    feature_splits,
    num_classes,
    sizes,
)


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult:
    """Evaluates logistic regression by L-BFGS, its strength chosen on validation data.

    The classifier is refitted to the training and validation parts together. The option
    `metric` is a name in `metrics.ONE_LABEL`; the default is the data set's metric.

    Raises:
        ValueError: if images do not have one label each, or if the metric is for
            multi-label images.
    """
    parts, own_metric = feature_splits(frozen)
    metric = request.options.get("metric") or own_metric
    found = logistic.choose_strength(
        *parts, metric=metric, num_classes=num_classes(parts)
    )
    return EvalResult(
        protocol="transfer: l2-regularized multinomial logistic regression, L-BFGS",
        values={
            f"transfer/{metric}": 100 * found.value,
            "transfer/top1": 100 * found.top1,
        },
        splits=sizes(parts),
        settings={
            "objective": "sum of cross-entropies + strength / 2 |W|^2; biases are not "
            "penalized",
            "strength": found.strength,
            "strengths": logistic.STRENGTHS,
            "max_iterations": logistic.MAX_ITERATIONS,
            "tolerance": logistic.TOLERANCE,
            "converged": found.converged,
        },
    )


PROTOCOL = Protocol("transfer", evaluate, reads=("metric", *LABELS))
