import numpy as np
import pytest

from logo_jax.data.canvas import (
    CorruptCounter,
    canvas_size,
    read_canvases,
    read_eval_crops,
)
from logo_jax.data.decode import DecodeError
from logo_jax.data.sources.base import ArraySource
from logo_jax.data.sources.folder import load_folder
from tests.data.pictures import encoded, smooth, write_folder

SHAPES = ((10, 12), (30, 12), (9, 40), (1, 5))


@pytest.fixture(name="files")
def fixture_files(tmp_path):
    """Four images of different sizes; tests damage some of them with `damage`."""
    for i, shape in enumerate(SHAPES):
        (tmp_path / f"{i}.png").write_bytes(encoded(smooth(*shape, seed=i)))
    return load_folder(tmp_path)[0]


def damage(files, *numbers):
    for i in numbers:
        with open(files.name(i), "wb") as file:
            file.write(b"damaged")


def test_images_are_in_the_upper_left_corner_of_black_canvases(files):
    ids = np.array([2, 0, 3])
    canvases = read_canvases(files, ids, (16, 16))
    assert canvases.images.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(canvases.sizes, [SHAPES[i] for i in ids])
    np.testing.assert_array_equal(canvases.images[1, :10, :12], smooth(10, 12, seed=0))
    assert not canvases.images[1, 10:].any()
    assert not canvases.images[1, :, 12:].any()
    assert canvases.images[0, :9].any(axis=(0, 2)).all()  # 40 px fill all 16 columns
    assert not canvases.images[0, 9:].any()
    assert not canvases.failed.any()


def test_a_damaged_image_is_replaced_by_the_next_decodable_one(files):
    damage(files, 1, 2)
    canvases = read_canvases(files, np.array([0, 1]), (16, 16))
    assert canvases.failed.tolist() == [False, True]
    assert canvases.sizes.tolist() == [list(SHAPES[0]), list(SHAPES[3])]
    np.testing.assert_array_equal(canvases.images[1, :1, :5], smooth(1, 5, seed=3))


def test_the_label_is_that_of_the_image_on_the_canvas(tmp_path):
    files = load_folder(write_folder(tmp_path, {"a": 2, "b": 1}))[0]
    damage(files, 1)
    canvases = read_canvases(files, np.array([1, 0, 2]), (16, 16))
    assert canvases.labels.tolist() == [1, 0, 1]


def test_the_last_image_is_replaced_by_the_first(files):
    damage(files, 3)
    canvases = read_canvases(files, np.array([3]), (16, 16))
    np.testing.assert_array_equal(canvases.sizes[0], SHAPES[0])


def test_a_source_without_decodable_images_is_an_error(files):
    damage(files, 0, 1, 2, 3)
    with pytest.raises(DecodeError, match=r"0\.png and all other images"):
        read_canvases(files, np.array([0]), (16, 16))


def test_a_canvas_is_not_larger_than_the_largest_image():
    images = ArraySource(np.zeros((2, 20, 50, 3), np.uint8), origin="here")
    assert canvas_size(images, 32) == (20, 32)
    assert canvas_size(images, 64) == (20, 50)


def test_the_canvas_of_images_of_unknown_size_is_square(files):
    assert canvas_size(files, 64) == (64, 64)


def test_center_crops_are_cut_and_damaged_images_are_marked(files):
    damage(files, 1)
    squares = read_eval_crops(files, np.arange(4), resize=8, crop=6)
    assert squares.images.shape == (4, 6, 6, 3)
    assert squares.failed.tolist() == [False, True, False, False]


def test_images_of_several_sizes_cannot_be_evaluated_whole(files):
    with pytest.raises(ValueError, match=r"1\.png is 30x12, another is 10x12.*resize"):
        read_eval_crops(files, np.arange(2), resize=0, crop=0)


def test_labels_follow_their_images(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 2})
    source, *_ = load_folder(tmp_path)
    squares = read_eval_crops(source, np.array([3, 0, 2]), resize=0, crop=0)
    assert squares.labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(squares.images[0], smooth(24, 32, seed=101))


def test_a_damaged_image_is_logged_once_and_too_many_are_an_error(files, caplog):
    damage(files, 1, 3)
    skipped = CorruptCounter(files, max_fraction=0.25)
    ids, failed = np.array([[0, 1]]), np.array([[False, True]])
    skipped.add(ids, failed)
    skipped.add(ids, failed)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "1.png: cannot identify" in line
    with pytest.raises(ValueError, match=r"2 images .*more than 25.00% of 4; .*3\.png"):
        skipped.add(np.array([3]), np.array([True]))
