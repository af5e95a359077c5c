import os
import re
from pathlib import Path

import numpy as np
import pytest

from logo_jax.data.load import DataLocation, load_images, locate_dataset
from logo_jax.data.sources.base import NO_LABEL
from logo_jax.data.sources.folder import load_folder, load_unsplit_folder
from tests.data.pictures import write_folder


def labels(images):
    return [record.label for record in images.records(range(len(images)))]


def test_the_first_sub_folder_is_the_class_however_deep_a_file_lies(tmp_path):
    write_folder(tmp_path / "train", {"cat": 2, "dog/big": 1, "dog/small/old": 1})
    write_folder(tmp_path / "val", {"dog": 2})
    train, test, _ = load_folder(tmp_path)
    assert train.class_names == ("cat", "dog")
    assert labels(train) == [0, 0, 1, 1]
    assert test is not None
    assert labels(test) == [
        1,
        1,
    ]  # the training set's label, although dog is the only test class
    assert test.num_classes == 2


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Val"),
        ("training", "valid"),
        ("TRAIN", "validation"),
        ("train", "dev"),
        ("train", "testing"),
    ],
)
def test_a_split_has_several_names_with_small_and_capital_letters(
    train, test, tmp_path
):
    write_folder(tmp_path / train, {"a": 1, "b": 1})
    write_folder(tmp_path / test, {"a": 1})
    images, queries, remark = load_folder(tmp_path)
    assert images.root == str(tmp_path / train)
    assert queries is not None
    assert (queries.root, len(queries)) == (str(tmp_path / test), 1)
    assert remark == ""


def test_queries_are_of_val_and_the_folders_that_are_not_used_are_named(tmp_path):
    write_folder(tmp_path / "train", {"a": 1, "b": 1})
    write_folder(tmp_path / "val", {"a": 2})
    write_folder(tmp_path / "test", {"a": 3})
    write_folder(tmp_path, {"unlabeled": 1, "@eaDir": 1})
    _, queries, remark = load_folder(tmp_path)
    assert queries is not None
    assert len(queries) == 2
    assert remark == f"{tmp_path}/test, {tmp_path}/unlabeled are not used"


@pytest.mark.parametrize("labeled", ["val", "test"])
def test_an_unlabeled_split_does_not_take_the_place_of_a_labeled_one(labeled, tmp_path):
    write_folder(tmp_path / "train", {"a": 1, "b": 1})
    write_folder(tmp_path, {"val": 3, "test": 3})
    write_folder(tmp_path / labeled, {"a": 1})
    for file in (tmp_path / labeled).glob("*.png"):
        file.unlink()
    queries = load_folder(tmp_path).test
    assert queries is not None
    assert queries.root == str(tmp_path / labeled)


@pytest.mark.parametrize(
    ("train", "val", "reason"),
    [
        ({"a": 1, "b": 1}, {}, "has no folder val or test .*val_size=N holds out"),
        ({"a": 1, "b": 1}, {".": 2}, "val has no sub-folders; .*or config.data.val_s"),
        ({"a": 1, "b": 1}, {"a": 1, ".": 1}, "val/0.png is not in the folder of a cl"),
        ({"a": 9, "b": 8, ".": 2}, {"a": 1}, r"train/0.png is not .*\(2 such files\)"),
        ({"images": 4}, {"images": 2}, "train has one class, images; two or more"),
        ({".": 4}, {"a": 2}, "train has no sub-folders"),
    ],
)
def test_without_queries_the_reason_is_given(train, val, reason, tmp_path):
    write_folder(tmp_path / "train", train)
    write_folder(tmp_path / "val", val) if val else None
    images, queries, remark = load_folder(tmp_path)
    assert queries is None
    assert len(images) == sum(train.values())
    assert re.search(reason, remark)


def test_classes_without_a_training_folder_get_no_queries_but_a_hint(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 1})
    assert "config.data.val_size=N" in load_folder(tmp_path).remark
    write_folder(tmp_path, {"val": 1})
    assert "so val count as classes" in load_folder(tmp_path).remark


@pytest.mark.parametrize("folders", [["val"], ["Val", "test"]])
def test_images_of_other_splits_are_not_trained_on(folders, tmp_path):
    for folder in folders:
        write_folder(tmp_path / folder, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="but no folder train; add it, or give"):
        load_folder(tmp_path)
    assert len(load_folder(tmp_path / folders[0]).train) == 2


def test_a_folder_around_the_splits_is_named(tmp_path):
    write_folder(tmp_path / "photos", {"train/a": 1, "val/a": 1})
    with pytest.raises(ValueError, match=f"config.data.path={tmp_path}/photos"):
        load_folder(tmp_path)


def test_two_folders_of_training_images_are_refused(tmp_path):
    write_folder(tmp_path, {"train/a": 1, "training/a": 1})
    with pytest.raises(
        ValueError, match="has the folders train and training; leave one"
    ):
        load_folder(tmp_path)


def test_all_images_below_splits_have_the_classes_of_the_splits(tmp_path):
    write_folder(tmp_path, {"train/a": 1, "train/b": 1, "Val/b": 1})
    images = load_unsplit_folder(tmp_path)
    assert images.class_names == ("a", "b")
    assert dict(zip(images.files, labels(images), strict=True)) == {
        "Val/b/0.png": 1,
        "train/a/0.png": 0,
        "train/b/0.png": 1,
    }
    assert images.notes == ("the classes are the sub-folders of train and Val",)
    write_folder(tmp_path, {"c": 1})
    assert load_unsplit_folder(tmp_path).class_names == ("Val", "c", "train")


def test_a_folder_without_splits_is_for_training(tmp_path):
    write_folder(tmp_path, {"a": 2, "val": 1})
    train, test, _ = load_folder(tmp_path)
    assert train.class_names == ("a", "val")
    assert test is None


def test_files_next_to_the_sub_folders_make_all_images_unlabeled(tmp_path):
    write_folder(tmp_path, {"a": 1, ".": 1})
    train, test, _ = load_folder(tmp_path)
    assert len(train) == 2
    assert train.num_classes == 0
    assert labels(train) == [NO_LABEL] * 2
    assert test is None


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_of_20_images_next_to_the_classes_has_no_label_and_is_named(
    split, tmp_path
):
    for name in ("train", "val"):
        outside = {".": 1} if name == split else {}
        write_folder(tmp_path / name, {"a": 10, "b": 9} | outside)
    data = load_images(DataLocation("folder", path=str(tmp_path)))
    assert (len(data.train), data.train.num_classes) == (
        20 if split == "train" else 19,
        2,
    )
    for part in (data.bank, data.queries):
        assert part is not None
        assert labels(part) == [0] * 10 + [1] * 9
    assert data.notes == (
        f"in {tmp_path / split}, outside of the folders of classes: 1 of 20 images "
        "(0.png), without a label and not in kNN",
    )


def test_images_next_to_the_splits_have_no_class_of_the_splits(tmp_path):
    write_folder(tmp_path, {"train/a": 10, "val/a": 9, ".": 1})
    images = load_unsplit_folder(tmp_path)
    assert images.class_names == ("a",)
    assert labels(images) == [NO_LABEL] + [0] * 19


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    write_folder(tmp_path, {"b": 2, "a": 1, "c": 1})
    train, *_ = load_folder(tmp_path)
    found = [file.replace(os.sep, "/") for file in train.files]
    assert found == ["a/0.png", "b/0.png", "b/1.png", "c/0.png"]
    assert Path(train.name(1)) == tmp_path / "b" / "0.png"


def test_other_and_hidden_files_are_skipped(tmp_path):
    write_folder(tmp_path, {"a": 1, ".cache": 1})
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "._0.png").write_bytes(b"written by a file manager")
    (tmp_path / "a" / "UPPER.JPG").write_bytes(b"an image according to its suffix")
    train, *_ = load_folder(tmp_path)
    assert tuple(train.files) == (
        os.path.join("a", "0.png"),
        os.path.join("a", "UPPER.JPG"),
    )


def test_linked_folders_and_unicode_names_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"x": 1})
    write_folder(tmp_path / "root", {"a": 1})
    (tmp_path / "root" / "große Katze").symlink_to(tmp_path / "elsewhere" / "x")
    train, *_ = load_folder(tmp_path / "root")
    assert train.class_names == ("a", "große Katze")


def test_a_list_keeps_its_classes_alone(tmp_path):
    write_folder(tmp_path / "train", {"a": 1, "b": 2, "c": 1})
    write_folder(tmp_path / "test", {"a": 1, "b": 1, "c": 1})
    (tmp_path / "classes.txt").write_text("c\nb\n")
    train, test, _ = load_folder(tmp_path, classes=tmp_path / "classes.txt")
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
    write_folder(tmp_path / "train", {"a": 1, "c": 1})
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
    train, *_ = load_folder(tmp_path)
    found = train.records(np.array([2, 0]))
    assert [Path(train.name(i)) for i in (2, 0)] == [record.image for record in found]
    assert [record.label for record in found] == [1, 0]


@pytest.mark.parametrize("names", [("cat.{}", "dog.{}"), ("big_cat-{:04}", "a dog {}")])
def test_classes_in_the_names_of_files_are_read_as_the_remark_says(names, tmp_path):
    for folder in ("train", "val"):
        write_folder(tmp_path, {folder: 4})
        for i, file in enumerate(sorted((tmp_path / folder).iterdir())):
            file.rename(file.with_stem(names[i % 2].format(i)))
    remark = load_folder(tmp_path).remark
    assert "/train has no sub-folders; kNN needs one per class; if " in remark
    pattern = remark.split("--config.data.label_pattern=")[1].strip("'")
    found = load_folder(tmp_path, label_pattern=pattern)
    expected = sorted(name.split("{")[0].rstrip(".- ") for name in names)
    assert list(found.train.class_names) == expected
    assert found.test is not None
    for images in (found.train, found.test):
        for file, label in zip(images.files, labels(images), strict=True):
            assert file.startswith(expected[label])


def test_files_that_do_not_match_have_no_label_and_none_that_match_is_an_error(
    tmp_path,
):
    write_folder(tmp_path, {".": 3})
    (tmp_path / "2.png").rename(tmp_path / "x.png")
    train = load_folder(tmp_path, label_pattern=r"(\d)\.").train
    assert train.class_names == ("0", "1")
    assert labels(train) == [0, 1, NO_LABEL]
    (note,) = train.notes
    assert "not matched by config.data.label_pattern: 1 of 3 images (x.png)" in note
    with pytest.raises(ValueError, match=r"matches none of the 3 paths .* 0.png; cha"):
        load_folder(tmp_path, label_pattern="(y)")
    one = load_folder(tmp_path, label_pattern="(x)")
    assert "label_pattern='(x)' gives one class, x" in one.remark


def test_no_object_is_made_for_each_file_of_a_folder(tmp_path, monkeypatch):
    """As `Path.glob` does: 10 million files took 2.6 GiB and the scan 0.7 GiB."""
    write_folder(tmp_path, {".": 3})

    def glob(self, pattern):
        assert not pattern.startswith("*"), f"{self}: {pattern}"
        return iter(())

    monkeypatch.setattr(Path, "glob", glob)
    place = locate_dataset(str(tmp_path))
    assert place["source"] == "folder"
    assert len(load_images(DataLocation(**place)).train) == 3


@pytest.mark.parametrize("name", ["IMG_{}", "{}", "photo {:03}", "x{}y"])
def test_names_of_a_camera_are_no_classes(name, tmp_path):
    write_folder(tmp_path, {".": 4})
    for i, file in enumerate(sorted(tmp_path.iterdir())):
        file.rename(file.with_stem(name.format(i)))
    assert load_folder(tmp_path).remark.endswith("kNN needs one per class")
