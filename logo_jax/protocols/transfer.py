"""Transfer by logistic regression on frozen features."""

from logo_jax.evaluation import logistic
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.protocols.base import (
    EvalRequest,
    EvalResult,
    Protocol,
    feature_splits,
    num_classes,
    sizes,
)


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult:
    """Logistic regression by L-BFGS; strength chosen on validation, refitted on both.

    Option `metric`: one of `metrics.ONE_LABEL`; default the data set's own.

    Raises:
        ValueError: where images do not have one label each, or the metric is for such.
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
            "objective": "sum of cross-entropies + strength / 2 |W|^2, biases free",
            "strength": found.strength,
            "strengths": logistic.STRENGTHS,
            "max_iterations": logistic.MAX_ITERATIONS,
            "tolerance": logistic.TOLERANCE,
            "converged": found.converged,
        },
    )


PROTOCOL = Protocol("transfer", evaluate, reads=("metric",))
