"""Request, result and table row of an evaluation protocol."""

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


class EvalRequest(NamedTuple):
    """What one evaluation is asked for.

    Attributes:
        options: those that were given, by name; a protocol has a default for the rest.
        folder: for protocols that train; it belongs to this evaluation alone, and need
            not exist.
        stop: read between steps.
    """

    options: Mapping[str, Any]
    folder: pathlib.Path
    stop: PreemptionHandler


class EvalResult(NamedTuple):
    """What an evaluation found, and how.

    Attributes:
        protocol: its full name; another one wherever numbers could differ.
        values: percent, by name; of several seeds, arrays of one value each.
        splits: how many images were used for what.
        settings: everything chosen, by name.
        augmentation: of the images that a classifier was trained on.
    """

    protocol: str
    values: dict[str, Any]
    splits: dict[str, int]
    settings: dict[str, Any]
    augmentation: str = "none"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to evaluate a frozen encoder; a row of `protocols.TABLE`.

    Attributes:
        name: the value of `--protocol`.
        evaluate: from an encoder and a request to the result; None where it was
            stopped before its end. The encoder is of one seed, unless `all_seeds`.
        reads: names of the options that it reads.
        recipes: values of the option `recipe` that select this row among those of the
            same name.
        all_seeds: whether `evaluate` takes the encoder of all seeds at once.
    """

    name: str
    evaluate: Callable[[FrozenEncoder, EvalRequest], EvalResult | None]
    reads: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    all_seeds: bool = False

    def run(self, frozen: FrozenEncoder, request: EvalRequest) -> EvalResult | None:
        """The result for all seeds, means and each; None where it was stopped.

        Of several seeds, each has a folder of its own.

        Raises:
            ValueError: where data or options do not fit the protocol.
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
    """Features of the data set's train, validation and test part; its own metric.

    Raises:
        ValueError: where there are no labels.
        FileNotFoundError: where the data are not there.
    """
    split = load_split(frozen.spec.config.data.location)
    return frozen.parts(split), split.metric


def num_classes(parts: FeatureSplits) -> int:
    """One more than the largest label of all parts."""
    return max(int(part.labels.max()) for part in parts) + 1


def sizes(parts: FeatureSplits) -> dict[str, int]:
    """How many images each part has."""
    return {name: len(part.labels) for name, part in parts._asdict().items()}
