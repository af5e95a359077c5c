"""A backbone of your own in Flax NNX, trained with MoCo-LoGo on scikit-learn's digits.

python -m examples.own_backbone
"""

import jax
import jax.numpy as jnp
from flax import nnx

import logo_jax
from examples.own_arrays import FIELDS, digits


class Network(nnx.Module):
    """Two convolutions with batch norm: images [b, h, w, 3] to features [b, width]."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.first = nnx.Conv(3, width, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.second = nnx.Conv(width, width, (3, 3), strides=2, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the features."""
        maps = nnx.relu(self.norm(self.first(images)))
        return jnp.mean(nnx.relu(self.second(maps)), axis=(1, 2))


def main() -> None:
    """Trains and prints the kNN accuracy and the shape of the features."""
    images, labels = digits()
    run = logo_jax.pretrain(
        (images, labels),
        config="cifar10_moco:logo",
        workdir="runs/own_backbone",
        **FIELDS | {"encoder.backbone": Network, "method.queue_size": 512},
    )
    print(f"kNN {run.metrics[-1]['knn/k20_t0.07/top1']:.1f} %")
    print("features:", run.encoder(images[:100]).shape)


if __name__ == "__main__":
    main()
