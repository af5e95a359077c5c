import io
import json
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from logo_jax.data.builders import cifar10, writing
from logo_jax.data.sources import tfds as tfds_source
from tests.data import prepared
from tests.data.pictures import decoded, encoded


def plain_rows(split, data_dir):
    return list(tfds.data_source("cifar10", split=split, data_dir=data_dir))


def loaded(split, data_dir):
    """Returns pixels and labels of a split."""
    return decoded(prepared.load("cifar10", split, data_dir))


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_and_labels_come_in_the_order_of_plain_tfds(split, data_dir):
    pixels, labels = loaded(split, data_dir)
    rows = plain_rows(split, data_dir)
    np.testing.assert_array_equal(pixels, [row["image"] for row in rows])
    assert labels == [row["label"] for row in rows]


def test_a_slice_is_a_part_of_its_split(data_dir):
    pixels, labels = loaded("train", data_dir)
    part, part_labels = loaded("train[5:9]", data_dir)
    np.testing.assert_array_equal(part, pixels[5:9])
    assert part_labels == labels[5:9]


def test_a_sum_of_splits_is_one_after_the_other(data_dir):
    both, labels = loaded("test+train[5:9]", data_dir)
    test, train = loaded("test", data_dir), loaded("train[5:9]", data_dir)
    np.testing.assert_array_equal(both, np.concatenate([test[0], train[0]]))
    assert labels == test[1] + train[1]


def test_records_of_a_sum_come_in_the_order_asked_for(data_dir):
    images = prepared.load("cifar10", "test+train", data_dir)
    ids = np.array([len(images) - 1, 0, 11, 10, 12, 3])
    wanted = images.records(range(len(images)))
    assert images.records(ids) == [wanted[i] for i in ids]


def test_a_source_can_be_sent_to_another_process(data_dir):
    images = prepared.load("cifar10", "test+train", data_dir)
    sent = pickle.loads(pickle.dumps(images))
    assert sent.records([3, 20]) == images.records([3, 20])


def test_size_and_number_of_classes_are_those_of_the_data_set(data_dir):
    images = prepared.load("cifar10", "test", data_dir)
    assert images.largest == (32, 32)
    assert images.num_classes == 10


def test_a_data_set_that_is_not_prepared_names_the_command_that_prepares_it(tmp_path):
    command = f"run python -m logo_jax.prepare cifar10 --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError) as error:
        prepared.load("cifar10", "train", tmp_path)
    assert str(error.value) == f"cifar10 is not prepared in {tmp_path}: {command}"
    with pytest.raises(
        FileNotFoundError, match="^mine is not prepared in .*array_record"
    ):
        prepared.load("mine", "train", tmp_path)


def test_a_data_set_stored_as_tfrecord_is_refused(data_dir, tmp_path):
    shutil.copytree(
        data_dir / "cifar10" / str(cifar10.Cifar10.VERSION),
        tmp_path / "cifar10" / str(cifar10.Cifar10.VERSION),
    )
    file = tmp_path / "cifar10" / str(cifar10.Cifar10.VERSION) / "dataset_info.json"
    info = json.loads(file.read_text()) | {"fileFormat": "tfrecord"}
    file.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"3\.0\.2 is stored as tfrecord"):
        prepared.load("cifar10", "train", tmp_path)


def test_an_unknown_split_is_refused_with_the_known_ones(data_dir):
    with pytest.raises(ValueError, match=r"'val'.*\['train', 'test'\]"):
        prepared.load("cifar10", "val", data_dir)


def test_an_empty_data_dir_means_the_default_of_tfds(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds_source.directory() == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tfds_source.directory("") == tmp_path / "tensorflow_datasets"
    assert tfds_source.directory("~/x") == tmp_path / "x"


class Voc(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Multi-label images, some labels difficult, in the format of stock TFDS's VOC."""

    name = "few_voc"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        labels = tfds.features.Sequence(tfds.features.ClassLabel(num_classes=4))
        names = ("labels", "labels_no_difficult")
        features = {"image": tfds.features.Image()} | dict.fromkeys(names, labels)
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        image = encoded(np.zeros((2, 2, 3), np.uint8), "PNG")
        for i, (shown, sure) in enumerate([([1, 3], [3]), ([0], [0]), ([], [])]):
            yield (
                i,
                {
                    "image": io.BytesIO(image),
                    "labels": shown,
                    "labels_no_difficult": sure,
                },
            )


def test_difficult_labels_of_multi_label_images_are_not_counted(tmp_path):
    writing.write("few_voc", Voc, tmp_path, {"train": 3})
    images = prepared.load("few_voc", "train", tmp_path)
    assert images.num_classes == 4
    found = sorted(record.label.tolist() for record in images.records(range(3)))
    assert found == [[-1, -1, -1, -1], [-1, 0, -1, 1], [1, -1, -1, -1]]
