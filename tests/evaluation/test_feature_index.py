"""An index on disk answers as a search in memory, a part at a time."""

import numpy as np
import pytest

from logo_jax.evaluation import feature_index
from logo_jax.evaluation.feature_index import Entries

WIDTH = 6


def parts(features, length=3):
    """Yields entries of a few rows each."""
    for start in range(0, len(features), length):
        rows = range(start, min(start + length, len(features)))
        files = [f"{i}.png" for i in rows]
        classes = [None if i % 5 else "fifth" for i in rows]
        yield Entries(files, classes, features[rows.start : rows.stop])


@pytest.fixture(name="features")
def fixture_features():
    drawn = np.random.default_rng(0).standard_normal((23, WIDTH)).astype(np.float32)
    drawn[17] = 3 * drawn[2]  # the same direction in another part
    return drawn


@pytest.fixture(name="index")
def fixture_index(features, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_index, "PART_BYTES", 4 * WIDTH * 10)  # 10 rows
    path = tmp_path / "x.index"
    assert feature_index.write(path, {"why": "a test"}, parts(features)) == 23
    return feature_index.read(path)


def test_the_nearest_of_all_parts_are_found_the_first_of_equals_first(index, features):
    assert (index.size, index.width, index.about) == (23, WIDTH, {"why": "a test"})
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines, rows = index.nearest(5 * features, 4)
    exact = units @ units.T
    expected = np.argsort(-np.round(exact, 5), axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(rows, expected)
    found = np.take_along_axis(exact, rows, axis=1)
    np.testing.assert_allclose(cosines, found, atol=1e-6)  # float32 dot products
    assert rows[17].tolist()[:2] == [2, 17]


def test_names_are_read_by_number_and_all_images_are_returned_if_k_is_larger(index):
    assert index.entries([22, 0, 10]) == [
        ("22.png", None),
        ("0.png", "fifth"),
        ("10.png", "fifth"),
    ]
    _, rows = index.nearest(np.ones((1, WIDTH), np.float32), 99)
    assert sorted(rows[0]) == list(range(23))


def test_queries_of_another_width_are_refused(index):
    with pytest.raises(ValueError, match=f"have 3 features.* have {WIDTH}"):
        index.nearest(np.ones((1, 3), np.float32), 1)


def test_a_damaged_file_is_named(index, tmp_path):
    content = index.path.read_bytes()
    damaged = tmp_path / "damaged.index"
    for wrong in (content[: len(content) // 2], b"", b"text"):
        damaged.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"damaged.index is damaged"):
            feature_index.read(damaged)
    with pytest.raises(FileNotFoundError, match="none is not a file"):
        feature_index.read(tmp_path / "none")


def test_features_that_are_not_finite_are_refused_with_the_name(features, tmp_path):
    features[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"features of 4\.png are not finite"):
        feature_index.write(tmp_path / "x.index", {}, parts(features))
