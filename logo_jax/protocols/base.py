"""Interface of evaluation protocols: request, result and row of the table."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from logo_jax.data.load import load_split
from logo_jax.evaluation.features import FeatureSplits
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.training.logging.metric_writer import by_seed
from logo_jax.training.preemption import PreemptionHandler

# Options of protocols that can train on a part of the labels. `runs.evaluation` draws
# it, so that protocols get a smaller data set, not these options.
LABELS = ("labels", "labels_seed")


class EvalRequest(NamedTuple):
    """Inputs of one evaluation, in addition to the encoder.

    Attributes:
        options: values of the options that were given, by name; the protocol has
            defaults for the others.
        folder: work folder of this evaluation, for protocols that train; it may not
            exist yet.
        stop: preemption handler, which is checked between steps.
    """

    options: Mapping[str, Any]
    folder: pathlib.Path
    stop: PreemptionHandler


class EvalResult(NamedTuple):
    """Values of an evaluation, and how they were obtained.

    Attributes:
        protocol: full name of the protocol; protocols that may give different values
            have different full names.
        values: values in percent, by name; for several seeds, arrays with one value per
            seed.
        splits: number of images of each part, by name.
        settings: all settings of the evaluation, by name.
        augmentation: augmentation of the images that a classifier was trained on.
        notes: sentences about how settings were chosen, and what to do next.
    """

    protocol: str
    values: dict[str, Any]
    splits: dict[str, int]
    settings: dict[str, Any]
    augmentation: str = "none"
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to evaluate a frozen encoder; a row of `protocols.TABLE`.

    Attributes:
        name: value of `--protocol`.
        evaluate: function from an encoder and a request to the result, or to None if it
            was stopped before its end. The encoder has one seed, unless `all_seeds`.
        reads: names of the options that the protocol reads.
        recipes: values of the option `recipe` that select this row among the rows with
            the same name.
        all_seeds: whether `evaluate` takes the encoder with all its seeds.
    """

    name: str
    evaluate: Callable[[FrozenEncoder, EvalRequest], EvalResult | None]
    reads: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    all_seeds: bool = False

    def run(self, frozen: FrozenEncoder, request: EvalRequest) -> EvalResult | None:
        """Evaluates all seeds; returns their mean and each seed's value.

        With several seeds, each seed has its own work folder. The result is None if the
        evaluation was stopped before its end.

        Raises:
            ValueError: if the data or the options do not fit the protocol.
        """
        seeds = frozen.spec.schedule.seeds
        if self.all_seeds or len(seeds) == 1:
            result = self.evaluate(frozen, request)
        else:
            result = self._each_seed(frozen, request, seeds)
        return result and result._replace(values=by_seed(result.values, seeds))

    def _each_seed(self, frozen, request, seeds) -> EvalResult | None:
        results = []
        for seed, one in zip(seeds, frozen.seeds(), strict=True):
            folder = request.folder.with_name(f"{request.folder.name}-seed{seed}")
            result = self.evaluate(one, request._replace(folder=folder))
            if result is None:
                return None
            results.append(result)
        return results[0]._replace(
            values={
                name: np.array([result.values[name] for result in results])
                for name in results[0].values
            },
            settings={"of each seed": [result.settings for result in results]},
        )


def feature_splits(frozen: FrozenEncoder) -> tuple[FeatureSplits, str]:
    """Returns features of the parts of a data set, and the name of its metric.

    The data set is that of the encoder's config; the parts are for training, validating
    and testing a classifier.

    Raises:
        ValueError: if the data set has no labels.
        FileNotFoundError: if the data set is not found.
    """
    split = load_split(frozen.spec.config.data.location, frozen.given)
    parts = frozen.parts(split)
    if not len(parts.val.labels):
        raise ValueError(
            "each class has one labeled image, so that none can be held out to choose "
            "the settings of this protocol; use --labels=2 or more, --protocol=knn, or "
            "--protocol=linear --recipe=moco"
        )
    return parts, split.metric


def num_classes(parts: FeatureSplits) -> int:
    """Number of classes: the largest label of all parts plus 1."""
    return max(int(part.labels.max()) for part in parts) + 1


def sizes(parts: FeatureSplits) -> dict[str, int]:
    """Number of images of each part, by name."""
    return {name: len(part.labels) for name, part in parts._asdict().items()}
