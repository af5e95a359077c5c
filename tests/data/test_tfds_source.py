import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from logo_jax.data import tfds_source
from logo_jax.data.builders import cifar10


def encoded(pixels, image_format="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


def plain_rows(split, data_dir):
    return list(tfds.data_source("cifar10", split=split, data_dir=data_dir))


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_and_labels_come_in_the_order_of_plain_tfds(split, data_dir):
    loaded = tfds_source.load("cifar10", split, data_dir)
    rows = plain_rows(split, data_dir)
    np.testing.assert_array_equal(loaded.images, [row["image"] for row in rows])
    np.testing.assert_array_equal(loaded.labels, [row["label"] for row in rows])
    assert loaded.class_names == cifar10.CLASS_NAMES


def test_a_slice_is_a_part_of_its_split(data_dir):
    whole = tfds_source.load("cifar10", "train", data_dir)
    part = tfds_source.load("cifar10", "train[5:9]", data_dir)
    np.testing.assert_array_equal(part.images, whole.images[5:9])
    np.testing.assert_array_equal(part.labels, whole.labels[5:9])


def test_many_images_keep_their_order_through_the_thread_pool():
    images = np.arange(1300, dtype=np.uint16).view(np.uint8).reshape(1300, 2)
    images = np.broadcast_to(
        np.pad(images, ((0, 0), (0, 1)))[:, None, None], (1300, 2, 4, 3)
    )
    decoded = tfds_source.decode([encoded(pixels) for pixels in images], origin="here")
    np.testing.assert_array_equal(decoded, images)


def test_grey_images_become_rgb():
    grey = np.array([[0, 128], [255, 7]], np.uint8)
    decoded = tfds_source.decode([encoded(grey)], origin="here")
    np.testing.assert_array_equal(decoded, np.repeat(grey[None, ..., None], 3, axis=-1))


def test_a_constant_jpeg_decodes_to_its_colour():
    pixels = np.full((16, 16, 3), 128, np.uint8)
    decoded = tfds_source.decode([encoded(pixels, "JPEG")], origin="here")
    np.testing.assert_array_equal(decoded[0], pixels)


def test_images_of_two_sizes_are_refused_with_both_sizes():
    tall, wide = np.zeros((4, 2, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="image 1 is 2x4, the first is 4x2.*streamed"):
        tfds_source.decode([encoded(tall), encoded(wide)], origin="here")


def test_a_data_set_that_is_not_prepared_names_the_command_that_prepares_it(tmp_path):
    command = f"run python -m logo_jax.prepare cifar10 --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError) as error:
        tfds_source.load("cifar10", "train", tmp_path)
    assert str(error.value) == f"cifar10 is not prepared in {tmp_path}: {command}"
    with pytest.raises(
        FileNotFoundError, match="^mine is not prepared in .*array_record"
    ):
        tfds_source.load("mine", "train", tmp_path)


def test_a_data_set_stored_as_tfrecord_is_refused(data_dir, tmp_path):
    shutil.copytree(cifar10.location(data_dir), cifar10.location(tmp_path))
    file = cifar10.location(tmp_path) / "dataset_info.json"
    info = json.loads(file.read_text()) | {"fileFormat": "tfrecord"}
    file.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"3\.0\.2 is stored as tfrecord"):
        tfds_source.load("cifar10", "train", tmp_path)


def test_an_unknown_split_is_refused_with_the_known_ones(data_dir):
    with pytest.raises(ValueError, match=r"'val'.*\['train', 'test'\]"):
        tfds_source.load("cifar10", "val", data_dir)


def test_an_empty_data_dir_means_the_default_of_tfds(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds_source.directory() == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tfds_source.directory("") == tmp_path / "tensorflow_datasets"
    assert tfds_source.directory("~/x") == tmp_path / "x"
