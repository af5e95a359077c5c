"""What a frozen encoder is worth, by each of the literature's protocols."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

from logo_jax.data.load import load_split
from logo_jax.evaluation import linear_grid as linear
from logo_jax.evaluation import logistic, svm
from logo_jax.evaluation.features import Features, FeatureSplits
from logo_jax.experiment import Recipe, knn_monitor, load_data
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.protocols.linear_probe import linear_probe
from logo_jax.training.preemption import PreemptionHandler


class EvalResult(NamedTuple):
    """What an evaluation found, and how.

    Attributes:
        protocol: its full name; another one wherever numbers could differ.
        values: percent, by name.
        splits: how many images were used for what.
        settings: everything chosen, by name.
        augmentation: of the images that a classifier was trained on.
    """

    protocol: str
    values: dict[str, Any]
    splits: dict[str, int]
    settings: dict[str, Any]
    augmentation: str = "none"


def knn(frozen: FrozenEncoder, trivial_baselines: bool = False) -> EvalResult:
    """Weighted kNN of the test set among the training set, as while training.

    Of several seeds, an array of values each.

    Args:
        frozen: the encoder, of all seeds.
        trivial_baselines: whether to add what pixels and an untrained encoder reach.

    Raises:
        ValueError: where labels are missing.
    """
    spec = frozen.spec
    data = load_data(spec.config.data)
    monitor = knn_monitor(spec, data, frozen.mesh)
    if monitor is None:
        raise ValueError(
            "kNN needs labels for the training and the test set; this data set has none"
        )
    values = monitor(frozen.state)
    if trivial_baselines:
        found = monitor.trivial_baselines(frozen.untrained().state)
        values |= {f"baseline/{name}": value for name, value in found.items()}
    return EvalResult(
        protocol="knn: weighted by exp(cosine / T), exact",
        values=values,
        splits={"bank": len(monitor.bank), "queries": len(monitor.queries)},
        settings={"k, T": monitor.settings},
    )


def linear_recipe(
    frozen: FrozenEncoder, recipe: Recipe, folder: pathlib.Path, stop: PreemptionHandler
) -> EvalResult | None:
    """A linear classifier trained on random crops in a folder; resumes there.

    Returns:
        None where it was stopped before its end.
    """
    data = load_data(frozen.spec.config.data)
    values = linear_probe(
        frozen.spec,
        frozen.state,
        data,
        frozen.mesh,
        recipe,
        folder,
        source=frozen.source,
        stop=stop,
    )
    if values is None or data.bank is None or data.queries is None:
        return None
    return EvalResult(
        protocol="linear: SGD on random crops",
        values=values,
        splits={"train": len(data.bank), "test": len(data.queries)},
        settings=dataclasses.asdict(recipe),
        augmentation=f"random crops of area {recipe.area}, flip {recipe.flip_prob}",
    )


def linear_grid(frozen: FrozenEncoder, num_epochs: int) -> EvalResult:
    """Linear classifiers on cached features; rate and decay chosen on validation."""
    parts = frozen.parts(load_split(frozen.spec.config.data.location))
    training = linear.Training(_num_classes(parts), num_epochs=num_epochs)
    probe = linear.best_of_grid(*parts, training)
    return EvalResult(
        protocol="linear: SGD on cached, standardised features, chosen on validation",
        values={"linear/top1": probe.top1, "linear/top5": probe.top5},
        splits=_sizes(parts),
        settings=training._asdict()
        | {
            "learning_rate": probe.learning_rate,
            "weight_decay": probe.weight_decay,
            "learning_rates": linear.LEARNING_RATES,
            "weight_decays": linear.WEIGHT_DECAYS,
            "val_top1": probe.val_top1.tolist(),
        },
    )


def transfer(frozen: FrozenEncoder, metric: str = "") -> EvalResult:
    """Logistic regression by L-BFGS; strength chosen on validation, refitted on both.

    Args:
        frozen: the encoder.
        metric: top1, top5 or mean_per_class; "" is the data set's own.
    """
    cut = load_split(frozen.spec.config.data.location)
    metric = metric or cut.metric
    parts = frozen.parts(cut)
    found = logistic.choose_strength(
        *parts, metric=metric, num_classes=_num_classes(parts)
    )
    return EvalResult(
        protocol="transfer: l2-regularised multinomial logistic regression, L-BFGS",
        values={
            f"transfer/{metric}": 100 * found.value,
            "transfer/top1": 100 * found.top1,
        },
        splits=_sizes(parts),
        settings={
            "objective": "sum of cross-entropies + strength / 2 |W|^2, biases free",
            "strength": found.strength,
            "strengths": logistic.STRENGTHS,
            "max_iterations": logistic.MAX_ITERATIONS,
            "tolerance": logistic.TOLERANCE,
            "converged": found.converged,
        },
    )


def voc07_svm(frozen: FrozenEncoder, metric: str = "") -> EvalResult:
    """Linear support vector machines, one a class, on images of several labels.

    Args:
        frozen: the encoder.
        metric: map or map_11_point; "" is map.
    """
    metric = metric or "map"
    parts = frozen.parts(load_split(frozen.spec.config.data.location))
    both = zip(parts.train, parts.val, strict=True)
    train = Features(*map(np.concatenate, both))
    value = svm.voc07_map(train, parts.test, metric=metric)
    return EvalResult(
        protocol="svm: VOC07, linear, C of each class by 3-fold average precision",
        values={f"svm/{metric}": 100 * value},
        splits={"train": len(train.labels), "test": len(parts.test.labels)},
        settings={"costs": svm.COSTS, "features": "backbone, length 1"},
    )


def _num_classes(parts: FeatureSplits) -> int:
    return max(int(part.labels.max()) for part in parts) + 1


def _sizes(parts: FeatureSplits) -> dict[str, int]:
    return {name: len(part.labels) for name, part in parts._asdict().items()}
