import numpy as np
import pytest

from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.load import DataLocation, ExperimentData, load_images
from logo_jax.data.sources.base import ArraySource
from tests.data.pictures import write_folder


def of_folder(root):
    return fingerprint(load_images(DataLocation("folder", path=str(root))))


def test_a_moved_folder_is_the_same_and_a_renamed_file_is_not(tmp_path):
    counts = {"train/a": 2, "train/b": 1, "val/b": 1}
    first = of_folder(write_folder(tmp_path / "x", counts))
    (tmp_path / "x").rename(tmp_path / "y")
    assert of_folder(tmp_path / "y") == first
    assert first["train"]["images"] == 3
    assert first["train"]["classes"] == 2
    assert first["queries"]["images"] == 1
    (tmp_path / "y/train/a/0.png").rename(tmp_path / "y/train/b/1.png")
    second = of_folder(tmp_path / "y")
    assert second["queries"] == first["queries"]
    assert second["train"].items() - first["train"].items() == {
        ("crc32", second["train"]["crc32"])
    }


def test_the_numbers_of_classes_are_part_of_it(tmp_path):
    write_folder(tmp_path, {"train/b": 1, "train/c": 1, "val/c": 1})
    first = of_folder(tmp_path)
    write_folder(tmp_path, {"train/a": 1})  # c, class 1, becomes class 2
    assert of_folder(tmp_path)["queries"] != first["queries"]


def test_arrays_are_identified_by_pixels_and_labels():
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.arange(4) % 2
    other = images.copy()
    other[3, 1, 1, 2] = 1
    variants = [(images, labels), (images, None), (images, 1 - labels), (other, labels)]
    found = [
        fingerprint(ExperimentData(ArraySource(*x, origin="x")))["train"]["crc32"]
        for x in variants
    ]
    assert len(set(found)) == 4


@pytest.mark.parametrize("val_size", [0, 5])
def test_a_prepared_data_set_is_the_same_in_another_folder(
    val_size, data_dir, tmp_path
):
    (tmp_path / "link").symlink_to(data_dir)
    places = (str(data_dir), str(tmp_path / "link"))
    one, other = (
        fingerprint(
            load_images(DataLocation("tfds", "cifar10", data_dir=x, val_size=val_size))
        )
        for x in places
    )
    assert one == other
    assert one["train"]["images"] == 23 - val_size
