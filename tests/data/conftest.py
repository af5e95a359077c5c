"""A small CIFAR-10 of random images, as array files and as a prepared TFDS data set."""

import numpy as np
import pytest

from logo_jax.data.builders import cifar10

SIZES = {"train": 23, "test": 11}


@pytest.fixture(name="arrays", scope="session")
def fixture_arrays():
    """Random images and labels of each split."""
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8),
            np.arange(n) % 10,
        )
        for split, n in SIZES.items()
    }


@pytest.fixture(name="arrays_dir", scope="session")
def fixture_arrays_dir(arrays, tmp_path_factory):
    """Folder with train.npz and test.npz."""
    folder = tmp_path_factory.mktemp("arrays")
    for split, (images, labels) in arrays.items():
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return folder


@pytest.fixture(name="data_dir", scope="session")
def fixture_data_dir(arrays_dir, tmp_path_factory):
    """TFDS data_dir with cifar10, prepared from arrays_dir."""
    folder = tmp_path_factory.mktemp("tfds")
    cifar10.from_arrays(folder, arrays_dir)
    return folder
