import os
from pathlib import Path

import numpy as np
import pytest

from logo_jax.data.sources.base import NO_LABEL
from logo_jax.data.sources.folder import load_folder
from tests.data.pictures import write_folder


def labels(images):
    return [record.label for record in images.records(range(len(images)))]


def test_the_first_sub_folder_is_the_class_however_deep_a_file_lies(tmp_path):
    write_folder(tmp_path / "train", {"cat": 2, "dog/big": 1, "dog/small/old": 1})
    write_folder(tmp_path / "val", {"dog": 2})
    train, test = load_folder(tmp_path)
    assert train.class_names == ("cat", "dog")
    assert labels(train) == [0, 0, 1, 1]
    assert test is not None
    assert labels(test) == [
        1,
        1,
    ]  # the training set's label, although dog is the only test class
    assert test.num_classes == 2


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_the_test_split_has_three_names(name, tmp_path):
    write_folder(tmp_path / "train", {"a": 1, "b": 1})
    write_folder(tmp_path / name, {"a": 1})
    assert len(load_folder(tmp_path)[1]) == 1


def test_a_folder_without_splits_is_for_training(tmp_path):
    write_folder(tmp_path, {"a": 2, "val": 1})
    train, test = load_folder(tmp_path)
    assert train.class_names == ("a", "val")
    assert test is None


def test_files_next_to_the_sub_folders_make_all_images_unlabeled(tmp_path):
    write_folder(tmp_path, {"a": 1, ".": 1})
    train, test = load_folder(tmp_path)
    assert len(train) == 2
    assert train.num_classes == 0
    assert labels(train) == [NO_LABEL] * 2
    assert test is None


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    write_folder(tmp_path, {"b": 2, "a": 1, "c": 1})
    train, _ = load_folder(tmp_path)
    found = [file.replace(os.sep, "/") for file in train.files]
    assert found == ["a/0.png", "b/0.png", "b/1.png", "c/0.png"]
    assert Path(train.name(1)) == tmp_path / "b" / "0.png"


def test_other_and_hidden_files_are_skipped(tmp_path):
    write_folder(tmp_path, {"a": 1, ".cache": 1})
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "._0.png").write_bytes(b"written by a file manager")
    (tmp_path / "a" / "UPPER.JPG").write_bytes(b"an image according to its suffix")
    train, _ = load_folder(tmp_path)
    assert train.files == (os.path.join("a", "0.png"), os.path.join("a", "UPPER.JPG"))


def test_linked_folders_and_unicode_names_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"x": 1})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "große Katze").symlink_to(tmp_path / "elsewhere" / "x")
    train, _ = load_folder(tmp_path / "root")
    assert train.class_names == ("große Katze",)


def test_a_list_keeps_its_classes_alone(tmp_path):
    write_folder(tmp_path / "train", {"a": 1, "b": 2, "c": 1})
    write_folder(tmp_path / "test", {"a": 1, "b": 1, "c": 1})
    (tmp_path / "classes.txt").write_text("c\nb\n")
    train, test = load_folder(tmp_path, classes=tmp_path / "classes.txt")
    assert train.class_names == test.class_names == ("b", "c")
    assert labels(train) == [0, 0, 1]
    assert labels(test) == [0, 1]


def test_a_listed_class_that_is_missing_is_named(tmp_path):
    write_folder(tmp_path, {"a": 1})
    (tmp_path / "classes.txt").write_text("a\nz")
    with pytest.raises(ValueError, match="has no images of class z"):
        load_folder(tmp_path, classes=tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(ValueError, match="lists no class"):
        load_folder(tmp_path, classes=tmp_path / "classes.txt")


def test_a_test_class_that_training_lacks_is_named(tmp_path):
    write_folder(tmp_path / "train", {"a": 1})
    write_folder(tmp_path / "test", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="has a class 'b' that .*train does not have"):
        load_folder(tmp_path)


def test_an_empty_and_a_missing_folder_are_errors(tmp_path):
    with pytest.raises(ValueError, match="contains no images"):
        load_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone is not a folder"):
        load_folder(tmp_path / "gone")


def test_a_folder_that_cannot_be_listed_is_not_skipped(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": 1, "b": 1})
    scandir = os.scandir

    def refuse(path):  # simulates missing permissions, because tests may run as root
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="/b"):
        load_folder(tmp_path)


def test_records_come_in_the_order_asked_for(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 1})
    train, _ = load_folder(tmp_path)
    found = train.records(np.array([2, 0]))
    assert [Path(train.name(i)) for i in (2, 0)] == [record.image for record in found]
    assert [record.label for record in found] == [1, 0]
