import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.methods import multi_crop
from logo_jax.methods.base import Batch
from logo_jax.methods.pairing import (
    PAIRINGS,
    pair_metrics,
    pair_weights,
    predicting_views,
    target_views,
)
from logo_jax.networks.batch_norm import BatchNorm

COUNTS = [(2, 0), (2, 2), (2, 6)]


class PooledNet(nn.Module):
    """Linear, batch norm, ReLU, mean over pixels, batch norm."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4, name="fc", use_bias=False)(x)
        x = nn.relu(BatchNorm(name="bn0")(x, train=train)).mean((-3, -2))
        return BatchNorm(name="bn1")(x, train=train)


def some_pairs(shape, pairs):
    """A matrix with equal weights, summing to one, at these pairs."""
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
    with pytest.raises(ValueError, match="1 global crops make no pair; use 2 or more"):
        pair_weights(pairing, 1, 4)


def test_views_of_a_batch_are_the_global_crops_then_the_local_ones():
    global_crops = jnp.arange(2.0)[None, :, None, None, None] * jnp.ones(
        (3, 2, 4, 4, 1)
    )
    batch = Batch(global_crops, 2 + global_crops[:, :, :2, :2])
    split = multi_crop.split_views(batch)
    assert [view.shape for view in split] == [(3, 4, 4, 1)] * 2 + [(3, 2, 2, 1)] * 2
    assert [view.mean().item() for view in split] == [0.0, 1.0, 2.0, 3.0]


def test_encoding_views_together_equals_encoding_one_after_the_other():
    rng = np.random.default_rng(0)
    sizes = (4, 4, 2, 2, 2, 4)
    crops = [
        jnp.asarray(i + rng.normal(size=(3, size, size, 2)), jnp.float32)
        for i, size in enumerate(sizes)
    ]
    net = PooledNet()
    variables = net.init(jax.random.key(0), crops[0][None], train=True)
    params, stats = variables["params"], variables["batch_stats"]
    together, moved = multi_crop.encode_views(net, params, stats, crops)
    one_by_one = []
    for crop in crops:
        embedding, stats = multi_crop.encode_views(net, params, stats, [crop])
        one_by_one.append(embedding[0])
    np.testing.assert_allclose(together, jnp.stack(one_by_one), atol=1e-5)
    for got, want in zip(jax.tree.leaves(moved), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_network_without_statistics_encodes_and_keeps_none():
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            del train
            return nn.Dense(2)(x)

    view = jnp.ones((3, 5))
    params = Flat().init(jax.random.key(0), view, train=True)["params"]
    embeddings, stats = multi_crop.encode_views(Flat(), params, {}, [view, 2 * view])
    assert embeddings.shape == (2, 3, 2)
    assert stats == {}


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


def test_views_beyond_the_moving_ones_leave_running_statistics_alone():
    module = BatchNorm()
    views_ = list(jax.random.normal(jax.random.key(0), (4, 8, 3)))
    variables = module.init(jax.random.key(1), views_[0][None], train=True)
    params, stats = variables["params"], variables["batch_stats"]

    def encode(some, moving=None):
        return multi_crop.encode_views(module, params, stats, some, moving=moving)

    everything, _ = encode(views_)
    embeddings, moved = encode(views_, moving=2)
    np.testing.assert_allclose(embeddings, everything, atol=1e-6)
    _, globals_only = encode(views_[:2])
    jax.tree.map(np.testing.assert_array_equal, moved, globals_only)
    _, still = encode(views_, moving=0)
    jax.tree.map(np.testing.assert_array_equal, still, stats)
