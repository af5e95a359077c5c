"""What the network has learned so far: kNN while training, and trivial baselines."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from logo_jax.evaluation.features import Encode, Features, LabeledImages, extract
from logo_jax.evaluation.knn import knn_accuracy
from logo_jax.evaluation.metrics import top1
from logo_jax.methods.base import ENCODER, LINEAR, TrainState
from logo_jax.methods.linear import logits, unit_features
from logo_jax.parallel.mesh import place


@dataclasses.dataclass(frozen=True)
class KnnMonitor:
    """Weighted kNN of the test set among the training set, by frozen features.

    Where a classifier learns in the state, its accuracy on the test set too.

    Attributes:
        encode_with: from a state to a function of uint8 images to features by layer.
        bank: labeled training images.
        queries: labeled test images.
        settings: pairs (neighbors, temperature).
        num_classes: of both.
        batch_size: images encoded at once.
        mesh: devices that share the search for neighbors.
        num_seeds: that the state holds; its leading axis where there are several.
    """

    encode_with: Callable[[TrainState], Encode]
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
            raise ValueError(
                f"monitor.knn has k={most} neighbors, more than the bank's "
                f"{len(self.bank)} examples; use a smaller k, "
                "such as --config.monitor.knn='((20, 0.07),)'"
            )

    def __call__(self, state: TrainState) -> dict[str, Any]:
        """Accuracies in percent: `knn/k20_t0.07/top1`, `knn_projector/...`.

        And `linear/test_top1`, of a classifier that `OnlineLinear` trains. Of several
        seeds, an array [n] each.
        """
        if self.num_seeds == 1:
            return self._evaluate(state)
        seeds = [
            self._evaluate(jax.tree.map(operator.itemgetter(i), state))
            for i in range(self.num_seeds)
        ]
        return {name: np.array([seed[name] for seed in seeds]) for name in seeds[0]}

    def _evaluate(self, state):
        encode = self.encode_with(state)
        bank = extract(encode, self.bank, batch_size=self.batch_size)
        queries = extract(encode, self.queries, batch_size=self.batch_size)
        values = {
            f"{'knn' if layer == 'backbone' else f'knn_{layer}'}/{name}": value
            for layer in bank
            for name, value in self._accuracy(bank[layer], queries[layer]).items()
        }
        if LINEAR in state.params:
            features, labels = queries["backbone"]
            classifier = jax.device_get(state.params[LINEAR])
            scores = logits(classifier, unit_features(features))
            values["linear/test_top1"] = 100 * top1(np.asarray(scores), labels)
        return values

    def trivial_baselines(self, state: TrainState) -> dict[str, float]:
        """Top-1 percent at the first setting that takes no learning to reach."""
        first = float(np.mean(next(iter(self(state).values()))))
        return {
            "raw pixels": self._baseline(lambda x: _reduced(x).reshape(len(x), -1)),
            "mean colour": self._baseline(lambda x: x.mean((1, 2))),
            "untrained network": first,
        }

    def _baseline(self, describe):
        """KNN of a fixed description of images, centered on the bank's mean."""
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


def _described(data: LabeledImages, describe: Callable) -> Features:
    parts = [
        (describe(images.astype(np.float32) / 255), labels)
        for images, labels in data.batches()
    ]
    features, labels = zip(*parts, strict=True)
    return Features(np.concatenate(features), np.concatenate(labels))


def _reduced(images: np.ndarray) -> np.ndarray:
    """Images [b, h, w, c] averaged over squares, to sides below 64 pixels."""
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
) -> Callable[[TrainState], Encode]:
    """A function from a state to `encode`, compiled once for all states.

    Args:
        encoder: the network that the state's "encoder" parameters belong to.
        prepare: from uint8 images to the network's input.
        sharding: of a batch of images over devices.
        layers: "backbone", "projector", or both.
    """
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())  # on every process too

    @functools.partial(jax.jit, out_shardings=everywhere)
    def encode(variables, images):
        features = encoder.apply(variables, prepare(images), method="features")
        outputs = {"backbone": features}
        if "projector" in layers:
            outputs["projector"] = encoder.apply(variables, features, method="project")
        return outputs

    def encode_with(state):
        variables = state.variables(ENCODER)
        return lambda images: encode(variables, place(images, sharding))

    return encode_with
