"""The page of neighbors: groups of near-duplicates, what is shown, and its data."""

import json
import re

import numpy as np

from logo_jax.visualization import neighbor_page
from logo_jax.visualization.neighbor_page import Neighbors


def neighbors(features, k):
    """The k nearest neighbors of unit vectors."""
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = units @ units.T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, : k + 1]
    return neighbor_page.without_itself(np.take_along_axis(cosines, rows, 1), rows)


def clusters():
    """40 directions; images 3, 20 and 31 are near-duplicates, and 5 and 6."""
    features = np.random.default_rng(0).standard_normal((40, 8))
    features[20] = features[3] + 0.02 * features[0]
    features[31] = features[20] + 0.02 * features[1]
    features[6] = 2 * features[5]
    return features


def test_an_image_is_not_its_own_neighbor_even_among_equal_images():
    found = neighbors(np.ones((5, 3)), 2)
    assert found.rows.shape == (5, 2)
    assert not (found.rows == np.arange(5)[:, None]).any()


def test_images_that_are_much_closer_than_usual_are_near_duplicates():
    found = neighbors(clusters(), 5)
    threshold = neighbor_page.usual_threshold(found)
    assert 0.9 < threshold < 1
    groups = neighbor_page.duplicate_groups(found, threshold)
    assert groups == [[3, 20, 31], [5, 6]]
    assert neighbor_page.duplicate_groups(found, 0.9999999) == [[5, 6]]


def test_equal_images_are_one_group_with_the_usual_threshold():
    found = neighbors(np.ones((4, 3)), 3)
    threshold = neighbor_page.usual_threshold(found)
    assert neighbor_page.duplicate_groups(found, threshold) == [[0, 1, 2, 3]]


def test_a_part_of_many_images_has_the_groups_and_whole_neighborhoods():
    found = neighbors(clusters(), 2)
    groups = [[3, 20, 31], [5, 6]]
    shown = neighbor_page.shown_rows(found, groups, 14)
    assert {3, 20, 31, 5, 6} <= shown
    assert len(shown) <= 14
    assert {0, *found.rows[0].tolist()} <= shown
    assert len(neighbor_page.shown_rows(found, groups, 3)) <= 3
    assert neighbor_page.shown_rows(found, groups, 40) == set(range(40))


def test_the_page_has_each_picture_once_and_the_neighbors_as_data():
    found = Neighbors(np.array([[0.5], [0.25], [0.5]]), np.array([[2], [0], [0]]))
    names = [("a</script>&.png", "<b>"), ("b.png", ""), ("c.png", "")]
    pictures = {0: b"zero", 1: b"one"}
    text = neighbor_page.neighbor_page("x", [], names, found, [], pictures)
    assert text.count("data:image/jpeg") == 2
    assert text.count("</script>") == 2  # the data and the program
    assert 'alt="a&lt;/script&gt;&amp;.png"' in text
    (data,) = re.findall(r'type="application/json">(.*?)</script>', text)
    read = json.loads(data)
    assert read["near"] == {"0": [[2, 0.5]], "1": [[0, 0.25]]}
    assert read["names"]["0"] == ["a</script>&.png", "<b>"]
    assert read["names"]["2"] == ["c.png", ""]
