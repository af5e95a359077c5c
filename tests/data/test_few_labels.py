"""Class-balanced draws of labels."""

import numpy as np
import pytest

from logo_jax.data import few_labels, load
from logo_jax.data.few_labels import Amount
from logo_jax.data.load import ExperimentData, load_split, with_few_labels
from logo_jax.data.sources.base import ArraySource, Joined, Subset
from logo_jax.data.sources.folder import load_unsplit_folder
from tests.data.pictures import write_folder

SIZES = (30, 10, 4)  # images of each class


def arrays(labels, **fields):
    pixels = np.arange(len(labels), dtype=np.uint8)
    images = np.broadcast_to(pixels[:, None, None, None], (len(labels), 2, 2, 3))
    return ArraySource(images, labels, origin="arrays", **fields)


@pytest.fixture(name="images")
def fixture_images():
    order = np.random.default_rng(1).permutation(sum(SIZES))
    return arrays(np.repeat(np.arange(3), SIZES)[order], class_names=("a", "b", "c"))


@pytest.mark.parametrize(
    ("amount", "counts"),
    [("0.1", [3, 1, 1]), ("0.5", [15, 5, 2]), ("1.0", [30, 10, 4]), (4, [4, 4, 4])],
)
def test_each_class_keeps_its_part(images, amount, counts):
    few = few_labels.draw(images, few_labels.parse_amount(amount), seed=0)
    np.testing.assert_array_equal(few.labels, images.labels[few.rows])
    assert np.bincount(few.labels).tolist() == counts
    assert (np.diff(few.rows) > 0).all()


def test_the_draw_depends_on_the_seed_and_a_larger_one_has_all_of_a_smaller(images):
    draws = [few_labels.draw(images, Amount(n), s).rows for n, s in ((2, 0), (2, 1))]
    assert set(draws[0]) != set(draws[1])
    assert set(draws[0]) < set(few_labels.draw(images, Amount(4), 0).rows)
    again = few_labels.draw(images, Amount(2), 0).rows
    np.testing.assert_array_equal(again, draws[0])


def test_a_class_with_too_few_images_is_named(images):
    message = "--labels=5 exceeds the 4 labeled images of class c in arrays; use .*=4"
    with pytest.raises(ValueError, match=message):
        few_labels.draw(images, Amount(5), 0)


@pytest.mark.parametrize("labels", ["0", 0, "-1", "1.5", 0.0, "x", "nan", "1 %", True])
def test_other_amounts_are_refused(labels):
    with pytest.raises(ValueError, match=f"--labels={labels} must be a fraction"):
        few_labels.parse_amount(labels)


def test_images_are_listed_by_number_and_file_if_they_are_few(
    images, tmp_path, monkeypatch
):
    few = few_labels.draw(images, Amount(2), 0)
    found = few_labels.described(few, images)
    assert found["indices"] == few.rows.tolist()
    assert "files" not in found
    folder = load_unsplit_folder(write_folder(tmp_path / "x", {"cat": 3, "dog": 2}))
    few = few_labels.draw(folder, Amount(1), 0)
    listed = few_labels.described(few, folder)
    assert listed["files"] == [folder.files[int(i)] for i in few.rows]
    assert [x.split("/")[0] for x in listed["files"]] == ["cat", "dog"]
    monkeypatch.setattr(few_labels, "MOST_LISTED", 1)
    long = few_labels.described(few, folder)
    assert "indices" not in long
    assert long["sha256"] == listed["sha256"] != found["sha256"]


def test_labels_of_sources_without_an_array_of_labels(images):
    parts = [Subset(images, np.arange(5), "x"), Subset(images, np.arange(5, 9), "y")]
    joined = Joined(parts)
    assert (len(joined), joined.largest) == (9, (2, 2))
    np.testing.assert_array_equal(few_labels.labels_of(joined), images.labels[:9])
    assert joined.name(6) == images.name(6)
    several = arrays(np.ones((4, 2), int))
    with pytest.raises(ValueError, match="several labels per image"):
        few_labels.labels_of(several)


def test_validation_images_are_a_fifth_of_each_class_of_the_drawn_ones(images):
    location = load.DataLocation("arrays")
    data = ExperimentData(images, images, arrays(np.array([0, 1, 2])))
    split = load_split(location, data, balanced=True)
    rows = split.draw({"train": images.labels, "test": np.array([0, 1, 2])})
    val, train = rows["val"].indices, rows["train"].indices
    assert np.bincount(images.labels[val]).tolist() == [6, 2, 1]
    assert sorted([*val, *train]) == list(range(sum(SIZES)))
    one = with_few_labels(data, Amount(1), 0)
    split = load_split(location, one)
    found = split.draw({"train": few_labels.labels_of(one.bank), "test": np.zeros(3)})
    assert len(found["val"].indices) == 0
    assert len(found["train"].indices) == 3
    assert one.few["per_class"] == [1, 1]


def test_unlabeled_images_have_no_labels_to_draw(images):
    message = "--labels=2 needs labeled training and test images"
    with pytest.raises(ValueError, match=message):
        with_few_labels(ExperimentData(images), Amount(2), 0)
