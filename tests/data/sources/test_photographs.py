import numpy as np
import pytest

from logo_jax.data.sources import photographs

SMALL = {"train_per_photograph": 5, "test_per_photograph": 3}


def covered(height, width, split, patch):
    """Mask of the pixels that are in any patch of a split, bool [height, width]."""
    mask = np.zeros((height, width), bool)
    for row, column in photographs.patch_corners(height, width, split, patch=patch):
        mask[row : row + patch, column : column + patch] = True
    return mask


@pytest.mark.parametrize("patch", [32, 33])
@pytest.mark.parametrize(("height", "width"), [(320, 320), (367, 320), (320, 481)])
def test_no_pixel_is_in_patches_of_both_splits(height, width, patch):
    train = covered(height, width, "train", patch)
    test = covered(height, width, "test", patch)
    assert not (train & test).any()
    assert 0.1 < test.mean() < 0.3 < 0.6 < train.mean()


def test_every_row_and_every_column_of_five_cells_has_one_test_cell():
    corners = photographs.cells(50, 50, "test", cell=10) // 10
    assert sorted(corners[:, 0]) == sorted(corners[:, 1]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("split", ["train", "test"])
def test_patches_are_cut_from_their_class_and_from_their_split(split):
    patches = photographs.load_photographs(split, **SMALL)
    for label, name in enumerate(photographs.PHOTOGRAPHS):
        pixels = photographs.read_photograph(name)
        corners = photographs.patch_corners(*pixels.shape[:2], split, patch=32)
        allowed = {
            patch.tobytes()
            for patch in photographs.cut_patches(pixels, corners, patch=32)
        }
        shown = patches.images[patches.labels == label]
        assert {patch.tobytes() for patch in shown} <= allowed
        assert patches.class_names[label] == name


def test_classes_are_equally_frequent_in_both_splits():
    for split, count in [("train", 5), ("test", 3)]:
        patches = photographs.load_photographs(split, **SMALL)
        assert patches.images.shape == (10 * count, 32, 32, 3)
        assert np.bincount(patches.labels).tolist() == [count] * 10


def test_both_splits_are_cut_from_one_decoding(monkeypatch):
    opened = []
    locate = photographs.locate_photograph
    monkeypatch.setattr(
        photographs, "locate_photograph", lambda x: opened.append(x) or locate(x)
    )
    photographs.read_photograph.cache_clear()
    for split in ("train", "test"):
        photographs.load_photographs(split, **SMALL)
    assert sorted(opened) == sorted(photographs.PHOTOGRAPHS)


def test_the_seed_alone_decides_which_patches_are_cut():
    first, again, other = (
        photographs.load_photographs("test", test_per_photograph=3, seed=seed).images
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).mean() > 0.9


def test_the_short_side_of_every_photograph_is_the_same():
    for name in photographs.PHOTOGRAPHS:
        assert (
            min(photographs.read_photograph(name).shape[:2]) == photographs.SHORT_SIDE
        )


def test_too_many_patches_are_an_error_with_their_number():
    with pytest.raises(
        ValueError, match=r"test patches .* between 1 and \d+, got 9000"
    ):
        photographs.load_photographs("test", test_per_photograph=9000)
    with pytest.raises(ValueError, match="between 1 and 0"):
        photographs.load_photographs("test", patch=400)
    with pytest.raises(
        ValueError, match="patch must be a positive number of pixels, got 0"
    ):
        photographs.load_photographs("test", patch=0)
