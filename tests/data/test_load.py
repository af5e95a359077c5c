import dataclasses
import subprocess
import sys
import types

import numpy as np
import pytest

from logo_jax.data.eval_crops import decode_all
from logo_jax.data.load import (
    DataLocation,
    load_arrays,
    load_images,
    load_split,
    locate_dataset,
)
from logo_jax.data.sources import tfds as tfds_source
from logo_jax.data.sources.base import DEFAULT_DECODING, ArraySource, Decoding
from tests.data.pictures import decoded, write_folder


def test_held_out_arrays_keep_their_channels_and_values():
    images = np.random.default_rng(0).random((9, 4, 4, 4), np.float32)
    decoding = Decoding(channels=4, dtype="float32")
    _, data = load_arrays(images, np.arange(9) % 2, 3, decoding)
    for part in (data.train, data.queries):
        found = decode_all(part, max_corrupt=0)
        np.testing.assert_array_equal(found.images, images[part.ids])


def test_arrays_of_which_some_are_unlabeled_hold_out_no_images():
    images, labels = np.zeros((9, 4, 4, 3), np.uint8), np.arange(9) % 3 - 1
    with pytest.raises(ValueError, match="the arrays are not all labeled; set it to 0"):
        load_arrays(images, labels, 3)


def test_a_test_split_of_tfds_without_labels_is_passed_over(monkeypatch):
    images, labels = (
        np.zeros((2, 8, 8, 3), np.uint8),
        {
            "train": [0, 1],
            "test": [-1, -1],
            "validation": [1, 0],
        },
    )

    def source(builder, split, decoding=DEFAULT_DECODING):
        del builder
        return ArraySource(images, labels[split], origin=split, decoding=decoding)

    info = types.SimpleNamespace(splits=labels)
    builder = types.SimpleNamespace(info=info)
    monkeypatch.setattr(tfds_source, "prepared", lambda name, folder: builder)
    monkeypatch.setattr(tfds_source, "TfdsSource", source)
    data = load_images(DataLocation("tfds", name="places365_small"))
    assert data.queries.origin == "validation"


def examples(images):
    """Returns all examples of a source, sorted to compare them in any order."""
    pixels, labels = decoded(images)
    return sorted(
        (image.tobytes(), label) for image, label in zip(pixels, labels, strict=True)
    )


def test_tfds_and_npz_hold_the_same_examples(arrays, arrays_dir, data_dir):
    from_npz = load_images(DataLocation("npz", path=str(arrays_dir)))
    from_tfds = load_images(
        DataLocation("tfds", name="cifar10", data_dir=str(data_dir))
    )
    np.testing.assert_array_equal(from_npz.queries.images, arrays["test"][0])
    for part in ("train", "bank", "queries"):
        found = (getattr(data, part) for data in (from_npz, from_tfds))
        first, second = map(examples, found)
        assert first == second


def test_the_bank_is_the_same_object_as_the_training_set(arrays_dir, data_dir):
    for data in (
        load_images(DataLocation("npz", path=str(arrays_dir))),
        load_images(DataLocation("tfds", name="cifar10", data_dir=str(data_dir))),
        load_images(DataLocation("photographs")),
    ):
        assert data.bank is data.train
        assert data.queries is not data.train


def test_images_held_out_leave_the_training_set_and_replace_the_test_set(
    arrays_dir, data_dir
):
    whole = load_images(DataLocation("npz", path=str(arrays_dir)))
    data = load_images(DataLocation("npz", path=str(arrays_dir), val_size=5))
    assert data.bank is data.train
    assert (len(data.train), len(data.queries)) == (len(whole.train) - 5, 5)
    assert sorted(examples(data.train) + examples(data.queries)) == examples(
        whole.train
    )
    again = load_images(
        DataLocation("tfds", name="cifar10", data_dir=str(data_dir), val_size=5)
    )
    assert len(again.queries) == 5
    first = load_images(DataLocation("npz", path=str(arrays_dir), val_size=5))
    assert examples(first.queries) == examples(data.queries)
    assert data.queries.name(0) in {
        whole.train.name(i) for i in range(len(whole.train))
    }


def test_a_classifier_is_also_tested_on_the_images_held_out(data_dir):
    where = DataLocation("tfds", name="cifar10", data_dir=str(data_dir))
    images, draw, metric = load_split(dataclasses.replace(where, val_size=5))
    assert images["test"].origin.endswith("train, held out")
    rows = draw({split: np.zeros(len(part)) for split, part in images.items()})
    assert len(rows["test"].indices) == len(images["test"]) == 5
    assert metric == "top1"
    assert load_split(where).images["test"].origin.endswith("test")


def test_holding_out_all_or_unlabeled_images_is_an_error(arrays_dir, tmp_path):
    images = len(load_images(DataLocation("npz", path=str(arrays_dir))).train)
    with pytest.raises(
        ValueError, match=f"must be less than the {images} training images"
    ):
        load_images(DataLocation("npz", path=str(arrays_dir), val_size=images))
    np.savez(tmp_path / "train.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="needs labeled training images"):
        load_images(DataLocation("npz", path=str(tmp_path), val_size=1))


def test_images_are_held_out_without_a_test_set_too(tmp_path):
    write_folder(tmp_path, {"train/a": 3, "train/b": 2})
    data = load_images(DataLocation("folder", path=str(tmp_path), val_size=2))
    assert (len(data.train), len(data.bank), len(data.queries)) == (3, 3, 2)


def test_arrays_without_a_test_file_are_held_out(tmp_path):
    images = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)
    np.savez(tmp_path / "train.npz", images=images, labels=[0, 1, 0, 1])
    where = DataLocation("npz", path=str(tmp_path))
    assert "val_size=N" in load_images(where).why_no_queries
    data = load_images(dataclasses.replace(where, val_size=1))
    assert (len(data.train), len(data.queries)) == (3, 1)
    np.savez(tmp_path / "val.npz", images=images, labels=[0, 1, 0, 1])
    data = load_images(dataclasses.replace(where, val_size=1))
    assert data.remark == f"{tmp_path}/val.npz is not used"


def test_a_column_of_labels_in_memory_is_one_class_per_image():
    images = np.zeros((3, 2, 2, 3), np.uint8)
    _, data = load_arrays(images, [[2], [0], [1]])
    assert [record.label for record in data.train.records([0, 1, 2])] == [2, 0, 1]


def test_a_path_is_located_as_what_is_in_it(tmp_path):
    for place in (tmp_path, tmp_path / "features.npz"):
        place.write_bytes(b"") if place != tmp_path else None
        source = "folder" if place == tmp_path else "npz"
        assert locate_dataset(str(place)) == {"source": source, "path": str(place)}
    assert locate_dataset(str(tmp_path))["source"] == "folder"
    (tmp_path / "Train.npz").write_bytes(b"")
    assert locate_dataset(str(tmp_path))["source"] == "npz"
    table = tmp_path / "labels.csv"
    table.touch()
    lists = f"{table},{table}"
    for paths in (str(table), lists):
        found = {"source": "folder", "list": paths, "path": ""}
        assert locate_dataset(paths) == found
    several = f"{tmp_path},{tmp_path}"
    assert locate_dataset(several)["path"] == several
    assert locate_dataset("cifar10") == {"source": "tfds", "name": "cifar10"}


def test_without_labels_there_is_nothing_to_evaluate_on(tmp_path):
    np.savez(tmp_path / "train.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    assert load_images(DataLocation("npz", path=str(tmp_path)))[1:3] == (None, None)
    write_folder(tmp_path / "pictures", {"a": 1})
    assert load_images(DataLocation("folder", path=str(tmp_path / "pictures")))[
        1:3
    ] == (
        None,
        None,
    )


def test_a_labeled_folder_with_a_test_split_is_evaluated_on(tmp_path):
    write_folder(tmp_path / "train", {"a": 2, "b": 1})
    write_folder(tmp_path / "val", {"a": 1})
    data = load_images(DataLocation("folder", path=str(tmp_path)))
    assert (len(data.bank), len(data.queries)) == (3, 1)


def test_a_list_of_classes_of_a_tfds_data_set_is_for_its_preparation():
    with pytest.raises(ValueError, match="not 'tfds'.*prepare imagenet100 --cla"):
        load_images(DataLocation("tfds", name="imagenet2012", classes="list.txt"))


@pytest.mark.parametrize("field", ["list", "columns", "classes", "label_pattern"])
def test_a_field_that_the_source_does_not_read_is_refused(field):
    location = dataclasses.replace(DataLocation("photographs"), **{field: "x"})
    with pytest.raises(ValueError, match=f"config.data.{field}='x' needs source=fol"):
        load_images(location)


def test_sub_folders_are_not_selected_from_a_list():
    location = DataLocation("folder", list="x.csv", classes="c.txt")
    with pytest.raises(ValueError, match="does not apply to config.data.list='x.csv'"):
        load_images(location)


def test_an_unknown_source_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'imagenet' must be one of tfds, folder, npz"):
        load_images(DataLocation("imagenet"))


def test_a_source_without_its_name_or_path_is_refused():
    with pytest.raises(ValueError, match="needs the data set's name"):
        load_images(DataLocation("tfds"))
    for source in ("npz", "folder"):
        with pytest.raises(ValueError, match="needs path"):
            load_images(DataLocation(source))


def test_reading_arrays_for_training_imports_no_slow_library_in_vain(arrays_dir):
    code = (
        "import sys, logo_jax.main; "
        "from logo_jax.data.load import DataLocation, load_images; "
        f"load_images(DataLocation('npz', path={str(arrays_dir)!r})); "
        "slow = {'tensorflow_datasets', 'pyarrow', 'tensorboardX', 'flax.nnx'}; "
        "print(slow & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True
    )
    assert found.stdout.decode().strip() == "set()"


def test_a_url_is_refused_as_a_data_set_of_evaluate_and_as_the_folder_of_tfds(
    monkeypatch,
):
    with pytest.raises(ValueError, match=r"hdfs://b/x must be a path of this machine"):
        locate_dataset("hdfs://b/x")
    monkeypatch.setenv("TFDS_DATA_DIR", "hdfs://b/tfds")
    with pytest.raises(
        ValueError, match=r"hdfs://b/tfds must be a path of this machine"
    ):
        load_images(DataLocation("tfds", name="cifar10"))
