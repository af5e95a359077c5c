import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import compute_url_info

from logo_jax.data.builders import stl10, writing
from tests.data import prepared
from tests.data.pictures import decoded
from tests.data.tar import write_tar

NAME = "stl10_binary.tar.gz"
CLASSES = [f"class{i}" for i in range(10)]
LABELS = {
    "train": [3, 10],
    "test": [1],
}  # as in the files, which number the classes from 1
FILES = {"train": "train_X.bin", "test": "test_X.bin", "unlabelled": "unlabeled_X.bin"}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    sizes = {"train": 2, "test": 1, "unlabelled": 3}
    return {
        split: rng.integers(256, size=(n, 96, 96, 3), dtype=np.uint8)
        for split, n in sizes.items()
    }


@pytest.fixture(scope="module")
def data_dir(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stl10")
    # axes in the order of the authors' description: planes, then columns, then rows
    contents = {
        FILES[split]: of_split.transpose(0, 3, 2, 1).tobytes()
        for split, of_split in images.items()
    }
    contents["train_y.bin"] = bytes(LABELS["train"])
    contents["test_y.bin"] = bytes(LABELS["test"])
    contents["class_names.txt"] = "\n".join(CLASSES).encode()
    file = write_tar(
        folder / "downloads" / "manual" / NAME,
        {f"stl10_binary/{name}": content for name, content in contents.items()},
    )

    class Tiny(stl10.Stl10, skip_registration=True):
        name = "stl10"
        url_infos = {f"http://127.0.0.1:9/{NAME}": compute_url_info(file)}

    counts = {split: len(of_split) for split, of_split in images.items()}
    writing.write_published(Tiny, folder, counts)
    return folder


def as_set(images, labels):
    pairs = zip(images, labels, strict=True)
    return {(pixels.tobytes(), int(label)) for pixels, label in pairs}


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_have_their_labels_numbered_from_zero(split, images, data_dir):
    loaded = prepared.load("stl10", split, data_dir)
    expected = as_set(images[split], np.array(LABELS[split]) - 1)
    assert as_set(*decoded(loaded)) == expected
    assert loaded.class_names == tuple(CLASSES)


def test_unlabeled_images_have_the_label_minus_one(images, data_dir):
    rows = list(tfds.data_source("stl10", split="unlabelled", data_dir=data_dir))
    found = as_set([row["image"] for row in rows], [row["label"] for row in rows])
    assert found == as_set(images["unlabelled"], [-1, -1, -1])


def test_the_table_of_data_sets_names_the_splits(data_dir):
    prepared.assert_has_the_splits_of_the_table("stl10", data_dir)


def test_reading_in_chunks_returns_every_image_once(tmp_path, monkeypatch):
    monkeypatch.setattr(stl10, "_CHUNK", 2)
    content = np.repeat(np.arange(5, dtype=np.uint8), 3 * 96 * 96).tobytes()
    file = write_tar(tmp_path / NAME, {"x": content, "cut": content[:-1]})
    assert [image[0, 0, 0] for image in stl10.read_images(file, "x")] == [0, 1, 2, 3, 4]
    with pytest.raises(
        ValueError, match="size of cut must be a multiple of 27648 bytes"
    ):
        list(stl10.read_images(file, "cut"))


def test_name_version_features_and_checksum_are_those_of_the_stock_builder(tmp_path):
    stock = tfds.builder("stl10", data_dir=tmp_path)
    ours = stl10.Stl10(data_dir=tmp_path)
    assert ours.info.full_name == stock.info.full_name
    assert ours.info.features.to_json() == stock.info.features.to_json()
    assert ours.url_infos == stock.url_infos
