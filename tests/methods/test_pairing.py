import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.methods.pairing import (
    PAIRINGS,
    pair_metrics,
    pair_weights,
    predicting_views,
    target_views,
)

COUNTS = [(2, 0), (2, 2), (2, 6)]


def some_pairs(shape, pairs):
    """Returns a matrix with equal weights, summing to one, at these pairs."""
    weights = np.zeros(shape)
    weights[tuple(np.transpose(pairs))] = 1 / len(pairs)
    return weights


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("pairing", [p for p in PAIRINGS if p != "summed"])
def test_weights_sum_to_one_and_no_view_predicts_itself(pairing, counts):
    weights = pair_weights(pairing, *counts)
    assert weights.shape == (sum(counts), sum(counts) if pairing == "all_pairs" else 2)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert np.diagonal(weights).tolist() == [0] * weights.shape[1]


@pytest.mark.parametrize("counts", COUNTS)
def test_one_way_is_the_first_view_predicting_the_second_alone(counts):
    expected = some_pairs((sum(counts), 2), [(0, 1)])
    np.testing.assert_array_equal(pair_weights("one_way", *counts), expected)


@pytest.mark.parametrize("counts", COUNTS)
def test_symmetric_is_both_directions_of_the_global_views(counts):
    expected = some_pairs((sum(counts), 2), [(0, 1), (1, 0)])
    np.testing.assert_array_equal(pair_weights("symmetric", *counts), expected)


def test_global_targets_of_two_and_two_are_six_pairs_of_one_sixth():
    pairs = [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    weights = pair_weights("global_targets", 2, 2)
    np.testing.assert_allclose(weights, some_pairs((4, 2), pairs))


@pytest.mark.parametrize("counts", COUNTS)
def test_all_pairs_weighs_every_pair_of_different_views_alike(counts):
    views_of_image = range(sum(counts))
    pairs = [(s, t) for s in views_of_image for t in views_of_image if s != t]
    weights = pair_weights("all_pairs", *counts)
    np.testing.assert_allclose(weights, some_pairs((sum(counts),) * 2, pairs))


def test_one_way_has_one_predicting_and_one_targeted_view():
    weights = pair_weights("one_way", 2, 2)
    assert (predicting_views(weights), target_views(weights)) == ([0], [1])


def test_all_views_predict_the_global_ones_with_global_targets():
    weights = pair_weights("global_targets", 2, 2)
    predicting, targeted = predicting_views(weights), target_views(weights)
    assert (predicting, targeted) == ([0, 1, 2, 3], [0, 1])


def test_unknown_pairing_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="pairing='both' must be one of one_way, sym"):
        pair_weights("both", 2, 0)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_one_global_crop_is_refused(pairing):
    with pytest.raises(ValueError, match="num_global=1 must be 2 or more"):
        pair_weights(pairing, 1, 4)


def test_pair_metrics_are_plain_means_of_each_kind_of_used_pair():
    weights = pair_weights("global_targets", 2, 1)
    losses = jnp.array([[100.0, 1.0], [3.0, 100.0], [10.0, 20.0]])
    metrics = pair_metrics(weights, losses, 2)
    assert {name: value.item() for name, value in metrics.items()} == {
        "loss_global_global": 2.0,
        "loss_local_global": 15.0,
    }


def test_pair_metrics_leave_out_kinds_without_a_pair():
    weights = pair_weights("symmetric", 2, 0)
    metrics = pair_metrics(weights, jnp.ones((2, 2)), 2)
    assert list(metrics) == ["loss_global_global"]


def test_summed_weighs_global_pairs_by_one_and_each_local_pair_by_one():
    weights = pair_weights("summed", 2, 2)
    np.testing.assert_array_equal(weights, [[0, 0.5], [0.5, 0], [1, 1], [1, 1]])
    baseline = pair_weights("summed", 2, 0)
    np.testing.assert_array_equal(baseline, pair_weights("symmetric", 2, 0))
