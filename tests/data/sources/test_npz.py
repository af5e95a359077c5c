import numpy as np
import pytest

from logo_jax.data.sources.npz import load_npz, load_npz_splits

IMAGES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)


def test_each_split_is_read_from_its_own_file(tmp_path):
    np.savez(tmp_path / "train.npz", images=IMAGES, labels=[4, 1])
    np.savez(tmp_path / "test.npz", images=IMAGES[::-1])
    train, test = load_npz(tmp_path, "train"), load_npz(str(tmp_path), "test")
    np.testing.assert_array_equal(train.images, IMAGES)
    assert train.labels is not None
    assert train.labels.tolist() == [4, 1]
    np.testing.assert_array_equal(test.images, IMAGES[::-1])
    assert test.labels is None


def test_a_missing_folder_and_a_missing_file_have_different_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="none is not a folder"):
        load_npz(tmp_path / "none", "train")
    with pytest.raises(FileNotFoundError, match=r"test\.npz is missing"):
        load_npz(tmp_path, "test")


def test_an_archive_without_images_is_refused_with_what_it_holds(tmp_path):
    np.savez(tmp_path / "train.npz", x=IMAGES)
    with pytest.raises(ValueError, match=r"must have an array 'images', got \['x'\]"):
        load_npz(tmp_path, "train")


def test_pickled_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "train.npz", images=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"train\.npz cannot be read \(Object arrays"):
        load_npz(tmp_path, "train")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "train.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="not an npz archive"):
        load_npz(tmp_path, "train")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_is_refused(tmp_path, save):
    file = tmp_path / "train.npz"
    save(file, images=np.random.default_rng(0).integers(255, size=(9, 9, 9, 3)))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff" * 40
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.npz cannot be read"):
        load_npz(tmp_path, "train")


GRAY = np.arange(2 * 5 * 6, dtype=np.uint8).reshape(2, 5, 6)
RGB = np.arange(2 * 5 * 6 * 3, dtype=np.uint8).reshape(2, 5, 6, 3)


@pytest.mark.parametrize(
    ("stored", "wanted", "note"),
    [
        (RGB, RGB, None),
        (RGB / 255, RGB, "floating-point numbers in [0, 1]"),
        (GRAY, np.stack([GRAY] * 3, -1), "gray"),
        (GRAY[..., None], np.stack([GRAY] * 3, -1), "gray"),
        (np.moveaxis(RGB, -1, 1), RGB, "channels first"),
        (np.pad(RGB, [(0, 0)] * 3 + [(0, 1)]), RGB, "with transparency, which is drop"),
        (
            np.float32(GRAY[:, None]) / 255,
            np.stack([GRAY] * 3, -1),
            "channels first, floating-point numbers in [0, 1], gray",
        ),
    ],
)
def test_images_whose_meaning_is_clear_are_converted_and_it_is_stated(
    stored, wanted, note, tmp_path
):
    np.savez(tmp_path / "train.npz", images=stored)
    found = load_npz(tmp_path, "train")
    np.testing.assert_array_equal(found.images, wanted)
    stated = [] if note is None else [f"images of {tmp_path}/train.npz were {note}"]
    assert [line[: len(x)] for line, x in zip(found.notes, stated, strict=True)] == (
        stated
    )


@pytest.mark.parametrize(
    "images",
    [
        2.0 * RGB,  # the value of white is not clear
        RGB / 255 - 0.1,
        np.where(RGB > 5, RGB / 255, np.nan),
        RGB.astype(np.int64),
        RGB[0],  # one image, or gray images of 3 px
        np.zeros((2, 5, 6, 5), np.uint8),
    ],
)
def test_other_images_are_refused(images, tmp_path):
    np.savez(tmp_path / "train.npz", images=images)
    with pytest.raises(ValueError, match=r"images must be uint8 \[n, h, w, 3\]"):
        load_npz(tmp_path, "train")


def test_labels_are_strings_or_a_column(tmp_path):
    np.savez(tmp_path / "train.npz", images=RGB, labels=["dog", "cat"])
    np.savez(tmp_path / "val.npz", images=RGB, labels=["dog", "dog"])
    train, test, _ = load_npz_splits(tmp_path)
    assert test is not None
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.notes == (f"labels of {tmp_path}/train.npz were strings",)
    assert train.labels.tolist() == [1, 0]
    assert test.labels.tolist() == [1, 1]  # as in the training set
    np.savez(tmp_path / "val.npz", images=RGB, labels=["dog", "emu"])
    with pytest.raises(ValueError, match="has a label 'emu' that the training"):
        load_npz_splits(tmp_path)
    np.savez(tmp_path / "val.npz", images=RGB, labels=[[1], [0]])
    with pytest.raises(ValueError, match="must both be strings or both be numbers"):
        load_npz_splits(tmp_path)
    assert load_npz(tmp_path, "train").num_classes == 2
    np.savez(tmp_path / "train.npz", images=RGB, labels=[[1], [0]])
    train, test, _ = load_npz_splits(tmp_path)
    assert train.labels.tolist() == test.labels.tolist() == [1, 0]
    assert test.notes == (f"labels of {tmp_path}/val.npz were a column",)


def test_queries_are_those_of_the_first_labeled_split(tmp_path):
    for name in ("train", "val", "test", "other"):
        np.savez(tmp_path / f"{name}.npz", images=RGB, labels=[0, 1])
    _, test, remark = load_npz_splits(tmp_path)
    assert test is not None
    assert test.origin == str(tmp_path / "val.npz")
    assert remark == f"{tmp_path}/other.npz, {tmp_path}/test.npz are not used"
    np.savez(tmp_path / "val.npz", images=RGB)
    assert load_npz_splits(tmp_path)[1].origin == str(tmp_path / "test.npz")
    for name in ("val", "test"):
        (tmp_path / f"{name}.npz").unlink()
    _, test, remark = load_npz_splits(tmp_path)
    assert test is None
    assert "config.data.val_size=N holds out" in remark


def test_a_single_file_has_the_training_images(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, images=RGB)
    for path in (tmp_path, file):
        train, test, remark = load_npz_splits(path)
        assert train.origin == str(file)
        assert (test, remark) == (None, f"{file} has no labels")
    file.rename(tmp_path / "val.npz")
    with pytest.raises(FileNotFoundError, match=r"train\.npz is missing"):
        load_npz_splits(tmp_path)
