"""kNN evaluation during training, and trivial baselines to compare it with."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from logo_jax.evaluation.features import Encode, Features, LabeledImages, extract
from logo_jax.evaluation.knn import accuracy_names, knn_accuracy
from logo_jax.evaluation.metrics import top1
from logo_jax.methods.base import EMA_ENCODER, ENCODER, LINEAR, TrainState
from logo_jax.methods.linear import logits, unit_features
from logo_jax.parallel.mesh import place

LINEAR_TOP1 = "linear/test_top1"


@dataclasses.dataclass(frozen=True)
class KnnMonitor:
    """Weighted kNN classification of the test set with the training set as bank.

    If the state has an online linear classifier, its test accuracy is computed too. If
    it has an average of the encoder, that is evaluated in the same way.

    Attributes:
        encode_with: function from a state and the name of an encoder in it to a
            function from stored images to features by layer.
        layers: the layers, "backbone" first.
        bank: labeled training images.
        queries: labeled test images.
        settings: pairs (number of neighbors, temperature).
        num_classes: number of classes of the bank and the queries.
        batch_size: number of images per encoder call.
        mesh: devices that share the search for neighbors.
        num_seeds: number of seeds in the state; if it is more than 1, the state's
            leaves have a leading axis of seeds.
    """

    encode_with: Callable[[TrainState, str], Encode]
    layers: tuple[str, ...]
    bank: LabeledImages
    queries: LabeledImages
    settings: tuple[tuple[int, float], ...]
    num_classes: int
    batch_size: int
    mesh: Mesh
    num_seeds: int = 1

    def __post_init__(self):
        most = max(k for k, _ in self.settings)
        if most > len(self.bank):
            fits = min(20, len(self.bank))
            raise ValueError(
                f"k={most} in monitor.knn exceeds the {len(self.bank)} examples of the "
                f"bank; use a smaller k: --config.monitor.knn='(({fits}, 0.07),)', or "
                f"--knn={fits},0.07 of evaluate"
            )

    def __call__(self, state: TrainState) -> dict[str, Any]:
        """Returns accuracies in percent: `knn/k20_t0.07/top1`, `knn_projector/...`.

        If the state has a classifier trained by `OnlineLinear`, its accuracy is
        `linear/test_top1`. Those of the average of the encoder are `ema/knn/...`. With
        n > 1 seeds, each value is an array [n].
        """
        if self.num_seeds == 1:
            return self._evaluate(state)
        seeds = [
            self._evaluate(jax.tree.map(operator.itemgetter(i), state))
            for i in range(self.num_seeds)
        ]
        return {name: np.array([seed[name] for seed in seeds]) for name in seeds[0]}

    def names(self, state: TrainState, *, several_labels: bool) -> list[str]:
        """Returns the names of the accuracies of a state, whose leaves are not used.

        Args:
            state: the state, or its shapes.
            several_labels: whether the images have several labels each.
        """
        names = accuracy_names(self.settings, several_labels=several_labels)
        found = [f"{_named(layer)}/{name}" for layer in self.layers for name in names]
        linear = [LINEAR_TOP1] if LINEAR in state.params else []
        average = [f"ema/{x}" for x in found] if EMA_ENCODER in state.memory else []
        return found + linear + average

    def _evaluate(self, state):
        values, queries = self._neighbors(state, ENCODER)
        if LINEAR in state.params:
            features, labels = queries["backbone"]
            classifier = jax.device_get(state.params[LINEAR])
            scores = logits(classifier, np.asarray(unit_features(features)))
            values[LINEAR_TOP1] = 100 * top1(scores, labels)
        if EMA_ENCODER in state.memory:
            averaged, _ = self._neighbors(state, EMA_ENCODER)
            values |= {f"ema/{name}": value for name, value in averaged.items()}
        return values

    def _neighbors(self, state, encoder):
        """Returns the kNN accuracies of an encoder, and its features of the queries."""
        encode = self.encode_with(state, encoder)
        bank = extract(encode, self.bank, batch_size=self.batch_size)
        queries = extract(encode, self.queries, batch_size=self.batch_size)
        values = {
            f"{_named(layer)}/{name}": value
            for layer in self.layers
            for name, value in self._accuracy(bank[layer], queries[layer]).items()
        }
        return values, queries

    def trivial_baselines(
        self, state: TrainState, name: str = "untrained network"
    ) -> dict[str, float]:
        """Returns the kNN accuracy of three features that need no training, in percent.

        The features are raw pixels, the mean color of the image, and the output of a
        network before training. The first pair (k, temperature) of `settings` is used.

        Args:
            state: the state of the network.
            name: name of the network in the result.
        """
        first = float(np.mean(next(iter(self(state).values()))))
        return {
            "raw pixels": self._baseline(lambda x: _reduced(x).reshape(len(x), -1)),
            "mean color": self._baseline(lambda x: x.mean((1, 2))),
            name: first,
        }

    def _baseline(self, describe):
        """Returns the kNN accuracy of fixed features, centered on the bank's mean."""
        bank, queries = (
            _described(data, describe) for data in (self.bank, self.queries)
        )
        mean = bank.features.mean(0)
        bank, queries = (
            part._replace(features=part.features - mean) for part in (bank, queries)
        )
        return next(iter(self._accuracy(bank, queries).values()))

    def _accuracy(self, bank, queries):
        return knn_accuracy(
            bank,
            queries,
            self.settings,
            num_classes=self.num_classes,
            mesh=self.mesh,
        )


def _named(layer: str) -> str:
    return "knn" if layer == "backbone" else f"knn_{layer}"


def _described(data: LabeledImages, describe: Callable) -> Features:
    parts = [
        (describe(images.astype(np.float32) / 255), labels)
        for images, labels in data.batches()
    ]
    features, labels = zip(*parts, strict=True)
    return Features(np.concatenate(features), np.concatenate(labels))


def _reduced(images: np.ndarray) -> np.ndarray:
    """Images [b, h, w, c], average-pooled until the shorter side is below 64 pixels."""
    step = max(1, min(images.shape[1:3]) // 32)
    height, width = (side // step for side in images.shape[1:3])
    images = images[:, : height * step, : width * step]
    squares = images.reshape(len(images), height, step, width, step, -1)
    return squares.mean((2, 4))


def make_encode_with(
    encoder: Any,
    prepare: Callable[[jax.Array], jax.Array],
    sharding: NamedSharding,
    layers: Sequence[str],
) -> Callable[..., Encode]:
    """Returns a function that makes an encoder's feature function for a given state.

    The result maps a train state, and the name of an encoder in it ("encoder" by
    default), to a function from stored images to features by layer name. The
    computation is compiled once for all states.

    Args:
        encoder: network that the parameters of the state's encoders belong to.
        prepare: function from stored images to the network's input.
        sharding: sharding of a batch of images over devices.
        layers: layers to return features of: "backbone", "projector", or both.
    """
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())  # every process has all

    @functools.partial(jax.jit, out_shardings=everywhere)
    def encode(variables, images):
        features = encoder.apply(variables, prepare(images), method="features")
        outputs = {"backbone": features}
        if "projector" in layers:
            outputs["projector"] = encoder.apply(variables, features, method="project")
        return outputs

    def encode_with(state, name=ENCODER):
        variables = state.variables(name)
        return lambda images: encode(variables, place(images, sharding))

    return encode_with
