"""Protocol linear, recipe features: a linear classifier on cached features.

Its SGD settings are chosen from a grid.
"""

from logo_jax.evaluation import linear_grid
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
    """Evaluates a linear classifier whose settings are chosen on the validation part.

    The settings are learning rate and weight decay. The classifier is retrained on the
    training and validation parts together, and evaluated once on the test part. The
    option `num_epochs` is the number of passes over the training data.

    Raises:
        ValueError: if images do not have one label each.
    """
    parts, _ = feature_splits(frozen)
    changes = {k: v for k, v in request.options.items() if k != "recipe"}
    training = linear_grid.Training(num_classes(parts), **changes)
    found = linear_grid.best_of_grid(*parts, training)
    return EvalResult(
        protocol="linear: SGD on cached, standardized features, chosen on validation",
        values={"linear/top1": found.top1, "linear/top5": found.top5},
        splits=sizes(parts),
        settings=training._asdict()
        | {
            "learning_rate": found.learning_rate,
            "weight_decay": found.weight_decay,
            "learning_rates": linear_grid.LEARNING_RATES,
            "weight_decays": linear_grid.WEIGHT_DECAYS,
            "val_top1": found.val_top1.tolist(),
        },
    )


PROTOCOL = Protocol(
    "linear",
    evaluate,
    reads=("recipe", "num_epochs", *LABELS),
    recipes=("features",),
)
