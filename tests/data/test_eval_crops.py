import numpy as np
import pytest
from PIL import Image

from logo_jax.data import eval_crops
from logo_jax.data.eval_crops import EvalCrops, decode_all, evenly_spaced, read_all
from logo_jax.data.sources.base import ArraySource, Record
from logo_jax.data.sources.folder import load_folder
from tests.data.pictures import smooth, write_folder

ARRAYS = ArraySource(
    np.random.default_rng(0).integers(0, 256, (600, 3, 4, 3), np.uint8),
    np.arange(600) % 7,
    origin="arrays",
)


@pytest.fixture(name="files")
def fixture_files(tmp_path):
    return load_folder(write_folder(tmp_path, {"a": 4, "b": 3}))[0]


def collected(squares):
    images, labels = zip(*squares.batches(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_all_images_come_in_order_with_their_sizes(files):
    images, sizes, labels = read_all(files, (32, 40), max_corrupt=0)
    assert images.shape == (7, 32, 40, 3)
    assert sizes.tolist() == [[24, 32]] * 7
    np.testing.assert_array_equal(images[5, :24, :32], smooth(24, 32, seed=101))
    assert labels.tolist() == [0] * 4 + [1] * 3


def test_values_that_are_not_finite_are_no_largest_value(tmp_path):
    for i, value in enumerate((np.nan, np.inf, 0.5)):
        pixels = np.full((8, 8), value, np.float32)
        Image.fromarray(pixels).save(tmp_path / f"{i}.tiff")
    (note,) = eval_crops.depth_notes(load_folder(tmp_path).train)
    assert note.startswith("1 of 3 images")
    assert "largest value, 0.5, becomes 127" in note


def test_arrays_that_fit_are_not_copied():
    images, sizes, labels = read_all(ARRAYS, (3, 4), max_corrupt=0)
    assert images is ARRAYS.images
    assert sizes.shape == (600, 2)
    assert (sizes == (3, 4)).all()
    assert labels.tolist() == [i % 7 for i in range(600)]


def test_arrays_are_downscaled_to_a_smaller_canvas():
    images, sizes, labels = read_all(ARRAYS, (3, 2), max_corrupt=0)
    assert images.shape == (600, 3, 2, 3)
    assert (sizes == (3, 4)).all()
    assert labels.tolist() == [i % 7 for i in range(600)]


@pytest.mark.parametrize("side", [3, 2])  # not resized, and downscaled
@pytest.mark.parametrize("labels", [None, np.ones((5, 4), np.int32)])
def test_unlabeled_and_multi_label_images_have_no_class(labels, side):
    pixels = np.zeros((5, 3, 3, 3), np.uint8)
    source = ArraySource(pixels, labels, origin="here")
    assert read_all(source, (side, side), max_corrupt=0)[2].tolist() == [-1] * 5


def test_many_chunks_keep_their_order(monkeypatch):
    monkeypatch.setattr(eval_crops, "_READ_AT_ONCE", 7)
    ids = np.arange(600)[::-1]
    images, labels = collected(EvalCrops(ARRAYS, ids, max_corrupt=0, threads=3))
    np.testing.assert_array_equal(images, ARRAYS.images[::-1])
    np.testing.assert_array_equal(labels, ARRAYS.labels[::-1])


def test_a_second_pass_gives_the_same_without_decoding_again(files, tmp_path):
    squares = EvalCrops(files, np.arange(7), max_corrupt=0, resize=8, crop=8)
    first = collected(squares)
    (tmp_path / "a" / "0.png").unlink()
    for before, after in zip(first, collected(squares), strict=True):
        np.testing.assert_array_equal(before, after)


def test_sets_too_large_to_keep_are_decoded_again(files, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_crops, "_KEPT_BYTES", 7 * 8 * 8 * 3 - 1)
    squares = EvalCrops(files, np.arange(7), max_corrupt=0.5, resize=8, crop=8)
    assert len(collected(squares)[0]) == 7
    (tmp_path / "a" / "0.png").unlink()
    assert len(collected(squares)[0]) == 6


def test_a_damaged_image_is_left_out_of_evaluations(files, tmp_path):
    (tmp_path / "a" / "1.png").write_bytes(b"damaged")
    found = decode_all(files, max_corrupt=0.5)
    assert len(found) == 6
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(found.images[1], smooth(24, 32, seed=2))
    with pytest.raises(ValueError, match="1 images cannot be decoded"):
        decode_all(files, max_corrupt=0.1)


def test_the_memory_limit_also_applies_to_images_that_are_not_cropped(
    files, monkeypatch
):
    class Sized:
        largest = (24, 32)

        def __getattr__(self, name):
            return getattr(files, name)

        def __len__(self):
            return len(files)

    squares = EvalCrops(Sized(), np.arange(7), max_corrupt=0)
    monkeypatch.setattr(eval_crops, "_KEPT_BYTES", 7 * 24 * 32 * 3 - 1)
    assert len(collected(squares)[0]) == 7
    assert "_kept" not in vars(squares)
    monkeypatch.setattr(eval_crops, "_KEPT_BYTES", 7 * 24 * 32 * 3)
    collected(squares)
    assert "_kept" in vars(squares)


def test_a_chunk_without_decodable_images_is_skipped(files, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_crops, "_READ_AT_ONCE", 3)
    (tmp_path / "b" / "2.png").write_bytes(b"damaged")  # the only image in its chunk
    assert len(decode_all(files, max_corrupt=0.5)) == 6


def test_the_limit_is_a_fraction_of_the_selected_images(files, tmp_path):
    (tmp_path / "a" / "1.png").write_bytes(b"damaged")
    squares = EvalCrops(files, np.arange(2), max_corrupt=0.4)
    with pytest.raises(ValueError, match="more than 40.00% of 2; "):
        collected(squares)


@pytest.mark.parametrize(("n", "limit", "count"), [(10, 0, 10), (10, 3, 3), (3, 9, 3)])
def test_numbers_are_spread_over_all_images(n, limit, count):
    numbers = evenly_spaced(n, limit)
    assert len(set(numbers.tolist())) == count
    assert numbers[0] == 0
    assert n - numbers[-1] <= -(-n // count)


def test_unlabeled_images_stay_unlabeled(files):
    """STL-10 is an example: most of its training images are unlabeled."""

    class Unlabeled:
        origin, largest, num_classes = "x", (4, 4), 3
        __len__ = files.__len__

        def records(self, ids):
            return [Record(np.zeros((4, 4, 3), np.uint8), i % 3 - 1) for i in ids]

        def name(self, i):
            return str(i)

    found = decode_all(Unlabeled(), max_corrupt=0.0)
    np.testing.assert_array_equal(found.labels, np.arange(len(files)) % 3 - 1)
