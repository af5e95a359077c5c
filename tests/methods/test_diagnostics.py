"""Compares health metrics with their closed forms and with NumPy's eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from logo_jax.methods import diagnostics
from logo_jax.methods.gradient import embedding_health
from logo_jax.parallel.mesh import AXIS, make_mesh


def gaussian(rows, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def measured(*views):
    numbers = jax.jit(diagnostics.measure)(np.stack(views))
    return {name.removeprefix("health/"): float(x) for name, x in numbers.items()}


def test_random_directions_have_std_one_the_rank_of_random_rows_and_uniformity_four():
    numbers = measured(gaussian(256, 64))
    assert numbers["std"] == pytest.approx(1, abs=0.01)
    assert numbers["rank"] == pytest.approx(256 * 64 / (256 + 64), rel=0.03)
    assert numbers["uniformity"] == pytest.approx(-4, abs=0.2)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_a_large_batch_is_measured_on_evenly_spaced_images(num_devices, monkeypatch):
    monkeypatch.setattr(diagnostics, "MOST_ROWS", 8)
    views = np.stack([gaussian(32, 6, seed) for seed in range(3)])
    measure = jax.shard_map(
        embedding_health,
        mesh=make_mesh(jax.devices()[:num_devices]),
        in_specs=P(None, AXIS),
        out_specs=P(),
    )
    found = jax.jit(measure)(views)
    expected = diagnostics.measure(jnp.asarray(views[:2, ::4]))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_one_point_has_no_std_no_rank_no_uniformity():
    numbers = measured(np.full((16, 8), 3.0, np.float32))
    assert numbers == pytest.approx({"std": 0, "rank": 0, "uniformity": 0}, abs=1e-6)


def test_two_opposite_clusters_have_rank_one_and_half_their_pairs_far_apart():
    point = gaussian(1, 8)[0]
    numbers = measured(np.outer([1.0, -1.0] * 8, point).astype(np.float32))
    assert numbers["rank"] == pytest.approx(1, rel=1e-5)
    pairs = np.array([np.exp(0.0)] * 14 + [np.exp(-8.0)] * 16)
    # Of 16 * 15 ordered pairs, 16 * 7 are within one cluster and 16 * 8 between two.
    expected = np.log((7 * pairs[0] + 8 * pairs[-1]) / 15)
    assert numbers["uniformity"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_vectors_along_k_even_axes_have_rank_k(k):
    axes = np.eye(k, 12, dtype=np.float32)
    assert measured(np.concatenate([axes, -axes] * 3))["rank"] == pytest.approx(
        k, rel=1e-5
    )


def test_rank_from_the_gram_matrix_is_that_of_the_covariances_eigenvalues():
    x = gaussian(20, 50) * np.linspace(0.1, 2, 50, dtype=np.float32) + 0.3
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T.astype(np.float64)))
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert measured(x)["rank"] == pytest.approx(expected, rel=1e-4)


def test_a_far_and_narrow_cloud_keeps_its_rank_in_float32():
    cloud = 1e-3 * np.concatenate([np.eye(3, 9), -np.eye(3, 9)]).astype(np.float32)
    center = np.zeros(9, np.float32)
    center[-1] = 1.0
    numbers = measured(center + cloud)
    assert numbers["rank"] == pytest.approx(3, rel=1e-2)
    assert numbers["uniformity"] < 0


def test_alignment_is_the_mean_squared_distance_of_unit_vectors():
    x = gaussian(8, 6)
    assert measured(x, 5 * x)["alignment"] == pytest.approx(0, abs=1e-6)
    assert measured(x, -x)["alignment"] == pytest.approx(4, rel=1e-6)
    assert "alignment" not in measured(x)


def test_only_the_first_view_counts_for_spread():
    x = gaussian(16, 6)
    alone, with_others = measured(x), measured(x, np.ones_like(x), np.ones_like(x))
    assert {name: with_others[name] for name in alone} == pytest.approx(alone)


def test_health_has_no_gradient_and_is_finite_at_zero():
    @jax.jit
    def total(x):
        return sum(diagnostics.measure(x).values())

    x = jnp.stack([jnp.zeros((4, 3)), jnp.ones((4, 3))])
    assert np.isfinite(total(x))
    np.testing.assert_array_equal(jax.grad(total)(x), 0.0)


def test_saturation_counts_scores_whose_slope_is_below_a_hundredth():
    edge = float(np.log(0.01 / 0.99))
    scores = jnp.array([edge - 0.1, edge + 0.1, 0.0, 50.0])
    assert float(diagnostics.saturation(scores)) == 0.25
