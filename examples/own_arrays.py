"""MoCo with LoGo on arrays of your own, here scikit-learn's digits; a minute on a CPU.

python -m examples.own_arrays
"""

import numpy as np
from sklearn.datasets import load_digits

import logo_jax

FIELDS = {
    "data.val_size": 300,  # labeled images held out, for kNN accuracy
    "data.batch_size": 64,
    "crops.global_crops": (2, 16, (0.5, 1.0)),
    "crops.local_crops": (2, 16, (0.2, 0.5)),
    "augment.flip_prob": 0.0,  # a flipped digit is not a digit
    "augment.mean": (0.5, 0.5, 0.5),
    "augment.std": (0.25, 0.25, 0.25),
    "encoder.backbone": "resnet10",
    "encoder.width": 16,
    "encoder.head_hidden": 64,
    "encoder.embedding_dim": 64,
    "logo.regressor_width": 64,
    "optimizer.learning_rate": 0.3,  # x batch_size / 256
    "train.num_steps": 200,
    "monitor.knn_every_steps": 50,
    "monitor.trivial_baselines": True,
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 [1797, 16, 16, 3], and their classes [1797]."""
    data = load_digits()
    large = data.images.repeat(2, axis=1).repeat(2, axis=2) / 16 * 255
    return np.stack([large.astype(np.uint8)] * 3, axis=-1), data.target


def main() -> None:
    """Trains and prints the kNN accuracy and the shape of the features."""
    images, labels = digits()
    run = logo_jax.pretrain(
        (images, labels),
        config="cifar10_moco:logo",
        workdir="runs/own_arrays",
        **FIELDS | {"method.queue_size": 512},
    )
    for row in run.metrics:
        if "knn/k20_t0.07/top1" in row:
            print(f"step {row['step']}: kNN {row['knn/k20_t0.07/top1']:.1f} %")
    print("features:", run.encoder(images[:100]).shape)


if __name__ == "__main__":
    main()
