import pickle

import numpy as np
import pytest

from logo_jax.data.decode import decode
from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.load import DataLocation, load_images, load_unsplit, locate_dataset
from tests.data.pictures import encoded, smooth

datasets = pytest.importorskip("datasets")


def rows(count, **columns):
    files = [encoded(smooth(9, 12, seed=i)) for i in range(count)]
    images = [{"bytes": x, "path": f"{i}.png"} for i, x in enumerate(files)]
    return {"picture": images} | columns


def made(count, labels, names=("cat", "dog")):
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(names))}
    )
    return datasets.Dataset.from_dict(rows(count, kind=labels), features=features)


def loaded(path, **fields):
    return load_images(DataLocation("huggingface", path=str(path), **fields))


def test_a_saved_data_set_is_read_by_number_and_decoded_by_our_decoder(tmp_path):
    splits = {"train": made(4, [0, 1, 1, -1]), "validation": made(2, [1, 0])}
    splits["extra"] = made(1, [0])
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "x")
    assert locate_dataset(str(tmp_path / "x"))["source"] == "huggingface"
    data = loaded(tmp_path / "x")
    assert (len(data.train), len(data.bank), len(data.queries)) == (4, 3, 2)
    assert data.train.class_names == ("cat", "dog")
    records = pickle.loads(pickle.dumps(data.train)).records(np.array([2, 0, 3]))
    assert [record.label for record in records] == [1, 0, -1]
    for record, seed in zip(records, (2, 0, 3), strict=True):
        assert isinstance(record.image, bytes)
        np.testing.assert_array_equal(decode(record.image)[0], smooth(9, 12, seed=seed))
    assert data.remark == "split 'extra' is not used"
    assert "images are 'picture', labels are 'kind'" in data.notes[0]
    whole = load_unsplit(str(tmp_path / "x"))
    assert (len(whole), whole.files[4]) == (7, "0.png")


def test_hidden_labels_of_the_training_images_leave_no_bank(tmp_path):
    splits = {"train": made(3, [-1, -1, -1]), "test": made(2, [1, 0])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "x")
    data = loaded(tmp_path / "x")
    assert (data.bank, data.queries, data.train.num_classes) == (None, None, 0)
    assert "no image of " in data.why_no_queries


def test_a_moved_data_set_is_the_same_and_a_changed_one_is_not(tmp_path):
    made(4, [0, 1, 1, 0]).save_to_disk(tmp_path / "x")
    first = fingerprint(loaded(tmp_path / "x"))
    (tmp_path / "x").rename(tmp_path / "y")
    assert fingerprint(loaded(tmp_path / "y")) == first
    made(4, [0, 1, 0, 0]).save_to_disk(tmp_path / "z")
    assert fingerprint(loaded(tmp_path / "z")) != first
    chosen = made(4, [0, 1, 1, 0]).select([3, 2, 1, 0])
    chosen.save_to_disk(tmp_path / "w")
    assert fingerprint(loaded(tmp_path / "w")) != first


def test_a_folder_of_parquet_files_has_splits_by_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "x/data").mkdir(parents=True)
    for split, labels in (("train", [0, 1, 0]), ("test", [1])):
        part = made(len(labels), labels)
        part.to_parquet(tmp_path / f"x/data/{split}-00000-of-00001.parquet")
    data = loaded(tmp_path / "x")
    assert [x.label for x in data.train.records([0, 1, 2])] == [0, 1, 0]
    assert [x.label for x in data.queries.records([0])] == [1]
    with pytest.raises(ValueError, match="use --config.data.source=huggingface"):
        load_images(DataLocation("folder", path=str(tmp_path / "x")))


def test_columns_without_types_have_usual_or_given_names(tmp_path):
    content = rows(4, label=["b", "a", "a", "b"], breed=[7, 7, 9, 9])
    made_of = datasets.Dataset.from_dict(content)
    made_of.cast_column("picture", datasets.Image()).save_to_disk(tmp_path / "x")
    assert loaded(tmp_path / "x").train.class_names == ("a", "b")
    given = loaded(tmp_path / "x", columns="label=breed").train
    assert given.class_names == ("7", "9")
    assert [record.label for record in given.records([0, 3])] == [0, 1]
    assert loaded(tmp_path / "x", columns="label=").train.num_classes == 0
    with pytest.raises(ValueError, match="has no column 'x'"):
        loaded(tmp_path / "x", columns="image=x")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "y")
    with pytest.raises(ValueError, match="no column of the type Image, but text"):
        loaded(tmp_path / "y")


def test_held_out_images_are_queries(tmp_path):
    made(5, [0, 1, 1, 0, 1]).save_to_disk(tmp_path / "x")
    data = loaded(tmp_path / "x", val_size=2)
    assert (len(data.train), len(data.queries)) == (3, 2)
    assert "val_size=N" in loaded(tmp_path / "x").why_no_queries


def test_another_folder_and_a_data_set_without_train_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no data set of Hugging Face"):
        loaded(tmp_path)
    parts = {"a": made(2, [0, 1]), "b": made(2, [0, 1])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "x")
    with pytest.raises(ValueError, match="has the splits a, b, but no split train"):
        loaded(tmp_path / "x")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    made(2, [0, 1]).save_to_disk(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'logo_jax\[huggingface\]'"):
        loaded(tmp_path)
