"""SimSiam with an augmentation of your own on scikit-learn's digits; a minute on a CPU.

python -m examples.own_augmentation
"""

import jax
import jax.numpy as jnp

import logo_jax
from examples.own_arrays import FIELDS, digits


def erase(key, image):
    """Sets a random square, a quarter of the image's side, to gray."""
    side = len(image) // 4
    row, column = jax.random.randint(key, (2,), 0, len(image) - side + 1)
    gray = jnp.full((side, side, 3), 0.5)
    return jax.lax.dynamic_update_slice(image, gray, (row, column, 0))


def main() -> None:
    """Trains with and without the augmentation, and prints both kNN accuracies."""
    for name, extra in (("without", ""), ("with", erase)):
        run = logo_jax.pretrain(
            digits(),
            config="cifar10_simsiam:baseline",
            workdir=f"runs/own_augmentation/{name}",
            **{k: x for k, x in FIELDS.items() if "local" not in k},
            **{"augment.extra": extra},
        )
        print(f"{name} erasing: kNN {run.metrics[-1]['knn/k20_t0.07/top1']:.1f} %")


if __name__ == "__main__":
    main()
