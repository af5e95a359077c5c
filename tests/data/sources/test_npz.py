import numpy as np
import pytest

from logo_jax.data.sources.npz import load_npz

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
