"""What the network has learned so far: kNN while training, and the floors under it."""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from logo_jax.evaluation.features import Encode, Features, extract
from logo_jax.evaluation.knn import knn_accuracy
from logo_jax.state import TrainState


@dataclasses.dataclass(frozen=True)
class KnnMonitor:
    """Weighted kNN of the test set among the training set, by frozen features.

    Attributes:
        encode_with: from a state to a function of uint8 images to features by layer.
        train: uint8 images [n, h, w, c] and labels [n] of the bank.
        test: images and labels of the queries.
        settings: pairs (neighbours, temperature).
        num_classes: of both.
        batch_size: images encoded at once.
        num_seeds: that the state holds; its leading axis where there are several.
    """

    encode_with: Callable[[TrainState], Encode]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    settings: tuple[tuple[int, float], ...]
    num_classes: int
    batch_size: int
    num_seeds: int = 1

    def __post_init__(self):
        most = max(k for k, _ in self.settings)
        if most > len(self.train[0]):
            raise ValueError(
                f"monitor.knn has k={most} neighbours, more than the bank's "
                f"{len(self.train[0])} examples; use a smaller k"
            )

    def __call__(self, state: TrainState) -> dict[str, Any]:
        """Accuracies in percent: `knn/k20_t0.07/top1`, `knn_projector/...`.

        Of several seeds, an array [n] each.
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
        train = extract(encode, *self.train, batch_size=self.batch_size)
        test = extract(encode, *self.test, batch_size=self.batch_size)
        return {
            f"{'knn' if layer == 'backbone' else f'knn_{layer}'}/{name}": value
            for layer in train
            for name, value in self._accuracy(train[layer], test[layer]).items()
        }

    def floors(self, state: TrainState) -> dict[str, float]:
        """Top-1 percent at the first setting that takes no learning to reach."""
        first = float(np.mean(next(iter(self(state).values()))))
        return {
            "raw pixels": self._floor(lambda x: x.reshape(len(x), -1)),
            "mean colour": self._floor(lambda x: x.mean((1, 2))),
            "untrained network": first,
        }

    def _floor(self, describe):
        """KNN of a fixed description of images, centred on the bank's mean."""
        train, test = (
            describe(images.astype(np.float32) / 255)
            for images in (self.train[0], self.test[0])
        )
        mean = train.mean(0)
        accuracy = self._accuracy(
            Features(train - mean, self.train[1]), Features(test - mean, self.test[1])
        )
        return next(iter(accuracy.values()))

    def _accuracy(self, train, test):
        return knn_accuracy(train, test, self.settings, num_classes=self.num_classes)


def make_encode_with(encoder, prepare, sharding, layers) -> Callable:
    """A function from a state to `encode`, compiled once for all states.

    Args:
        encoder: the network that the state's "encoder" parameters belong to.
        prepare: from uint8 images to the network's input.
        sharding: of a batch of images over devices.
        layers: "backbone", "projector", or both.
    """

    @jax.jit
    def encode(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        x = prepare(images)
        features = encoder.apply(variables, x, method="features")
        outputs = {"backbone": features}
        if "projector" in layers:
            outputs["projector"] = encoder.apply(variables, features, method="project")
        return outputs

    def encode_with(state):
        params, stats = state.params["encoder"], state.batch_stats["encoder"]
        return lambda images: encode(params, stats, jax.device_put(images, sharding))

    return encode_with
