"""Statistics that compare two measures of the same pairs."""

import numpy as np
import pytest
from scipy import stats

from logo_jax.visualization.similarity_plot import (
    Comparison,
    Scores,
    binned,
    overlaps,
    rank_correlation,
    roc_auc,
)


def test_the_overlap_of_disjoint_boxes_is_0_and_of_equal_boxes_1():
    boxes = np.array([[0.0, 0, 2, 3], [0, 0, 2, 3], [0, 0, 4, 4]])
    others = np.array([[5.0, 5, 2, 3], [0, 0, 2, 3], [1, 2, 2, 1]])
    np.testing.assert_allclose(overlaps(boxes, others), [0, 1, 2 / 16])
    np.testing.assert_allclose(overlaps(others, boxes), [0, 1, 2 / 16])


def test_rank_statistics_with_ties_agree_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 60)).astype(float)
    b += a
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    u = stats.mannwhitneyu(b, a).statistic
    assert roc_auc(b, a) == pytest.approx(u / 60**2)
    assert np.isnan(rank_correlation(a, np.ones(60)))


def test_equal_values_share_a_bin():
    x = np.array([0.0] * 6 + [0.2, 0.4, 0.6, 0.8])
    found = binned(x, np.arange(10.0), bins=5)
    assert len(found.x) < 5
    assert found.y[0] <= 3.0  # one bin holds all six zeros
    assert np.all(np.diff(found.x) > 0)


def test_equal_values_are_one_bin_with_the_standard_error_of_its_mean():
    found = binned(np.ones(4), np.array([1.0, 2.0, 3.0, 6.0]))
    np.testing.assert_allclose(found, [[1.0], [3.0], [np.sqrt(14 / 3 / 4)]])


def test_group_means_are_of_scores_between_the_smallest_and_the_largest():
    crops = np.zeros((4, 2, 2, 3), np.float32)
    scores = Scores(np.array([-4.0, 0, 4, 4]), np.array([0.1, 0.2, 0.3, 0.5]))
    means = Comparison(crops[0], crops, ["a", "b"], scores).means
    np.testing.assert_allclose(means["a"], (0.25, 0.125))
    np.testing.assert_allclose(means["b"], (1.0, 0.75))
