import numpy as np
import pytest

from logo_jax.data.sources.base import NO_LABEL, ArraySource, require_split

IMAGES = np.zeros((3, 4, 5, 3), np.uint8)


def test_labels_of_any_integer_type_become_int32():
    images = ArraySource(IMAGES, np.array([0, 200, 1], np.uint8), origin="here")
    assert images.labels is not None
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == [0, 200, 1]


def test_images_without_labels_are_valid_and_not_copied():
    images = ArraySource(IMAGES, origin="here")
    assert images.labels is None
    assert images.images is IMAGES


@pytest.mark.parametrize(
    ("images", "labels", "rule"),
    [
        (IMAGES.astype(np.float32), None, "uint8"),
        (IMAGES[0], None, r"\[n, h, w, 3\]"),
        (IMAGES[..., :1], None, r"\[n, h, w, 3\]"),
        (IMAGES[:0], None, "at least one"),
        (IMAGES, [0, 1], "2 labels for 3 images"),
        (IMAGES, [0, 1, -2], "negative"),
        (IMAGES, [0.0, 1.0, 2.0], "integers"),
        (IMAGES, [[0.0], [1.0], [1.0]], "integers"),
        (IMAGES, [[0], [1], [2]], r"1 \(shown\), 0"),
        (IMAGES, [[[0]]] * 3, "integers"),
        (IMAGES, [[1, 0], [0, 1], [0, 0]], r"use 2 \* labels.astype\(int\) - 1"),
    ],
)
def test_invalid_arrays_are_an_error_with_the_rule(images, labels, rule):
    with pytest.raises(ValueError, match=f"^here: .*{rule}"):
        ArraySource(images, labels, origin="here")


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="must be one of train, test, got 'val'"):
        require_split("val")


def test_records_hold_pixels_and_labels_in_the_order_asked_for():
    pixels = np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3)
    records = ArraySource(pixels, [0, 1, 2, 1, 0], origin="here").records([3, 0])
    assert [record.label for record in records] == [1, 0]
    np.testing.assert_array_equal(records[0].image, pixels[3])
    (record,) = ArraySource(pixels, origin="here").records([1])
    assert record.label == NO_LABEL


def test_an_image_may_show_several_classes():
    labels = np.array([[1, -1], [1, 0], [-1, -1]], np.int8)
    images = ArraySource(IMAGES, labels, origin="here")
    assert images.num_classes == 2
    np.testing.assert_array_equal(images.records([1])[0].label, [1, 0])
