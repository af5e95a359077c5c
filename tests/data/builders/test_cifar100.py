import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import compute_url_info

from logo_jax.data.builders import cifar100, writing
from tests.data import prepared
from tests.data.tar import write_tar

NAME = "cifar-100-binary.tar.gz"
FINE = [f"fine{i}" for i in range(100)]
COARSE = [f"coarse{i}" for i in range(20)]


def write(folder, rows):
    """Rows of (coarse, fine, pixels [32, 32, 3]), the same for both splits."""
    content = b"".join(
        bytes([coarse, fine]) + pixels.transpose(2, 0, 1).tobytes()
        for coarse, fine, pixels in rows
    )
    contents = {"train.bin": content, "test.bin": content}
    contents["fine_label_names.txt"] = "\n".join(FINE).encode()
    contents["coarse_label_names.txt"] = "\n".join(COARSE).encode()
    file = write_tar(
        folder / "downloads" / "manual" / NAME,
        {f"cifar-100-binary/{name}": content for name, content in contents.items()},
    )

    class Tiny(cifar100.Cifar100, skip_registration=True):
        name = "cifar100"
        url_infos = {f"http://127.0.0.1:9/{NAME}": compute_url_info(file)}

    return writing.write_published(Tiny, folder, {"train": 3, "test": 3})


def test_each_image_has_its_fine_and_its_coarse_label(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    expected = list(zip((19, 3, 7), (99, 20, 5), images, strict=True))
    written = write(tmp_path, expected)
    rows = {
        row["id"].decode(): row
        for row in tfds.data_source("cifar100", split="test", data_dir=tmp_path)
    }
    for i, (coarse, fine, pixels) in enumerate(expected):
        row = rows[f"test_{i:05d}"]
        assert (row["coarse_label"], row["label"]) == (coarse, fine)
        np.testing.assert_array_equal(row["image"], pixels)
    prepared.assert_has_the_splits_of_the_table("cifar100", tmp_path)
    features = tfds.builder_from_directory(written).info.features
    assert features["label"].names == FINE
    assert features["coarse_label"].names == COARSE


def test_name_version_and_features_are_those_of_the_stock_builder(tmp_path):
    stock = tfds.builder("cifar100", data_dir=tmp_path).info
    ours = cifar100.Cifar100(data_dir=tmp_path).info
    assert ours.full_name == stock.full_name
    assert ours.features.to_json() == stock.features.to_json()


def test_the_checksum_is_the_published_one():
    ((url, info),) = cifar100.Cifar100.published().items()
    assert url == "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    assert info is not None
    assert int(info.size) == 168_513_733
