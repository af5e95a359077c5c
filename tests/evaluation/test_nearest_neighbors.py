import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.evaluation import nearest_neighbors
from logo_jax.evaluation.features import Features
from logo_jax.parallel.mesh import make_mesh, replicate


def whole_numbers(seed, size):
    """Vectors of 1 and -1: their cosines are exact in float32 and have many ties."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (size, 4))
    return signs.astype(np.float32)


def found(bank_rows, queries, k, num_devices):
    mesh = make_mesh(jax.devices()[:num_devices])
    bank = Features(bank_rows, np.zeros(len(bank_rows), np.int32))
    bank = nearest_neighbors.make_bank(bank, mesh)
    find = jax.jit(lambda queries: nearest_neighbors.nearest(queries, bank, k))
    return find(replicate(queries, mesh))


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize(("rows_at_once", "k"), [(1000, 9), (3, 37)])
def test_neighbors_are_the_nearest_and_among_equals_the_first(
    num_devices, rows_at_once, k, monkeypatch
):
    monkeypatch.setattr(nearest_neighbors, "BANK_AT_ONCE", rows_at_once)
    bank, queries = whole_numbers(0, 37), whole_numbers(1, 5) / 2
    similarity, rows = found(bank, queries, k, num_devices)
    cosines = queries @ (bank / 2).T
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(rows, expected)
    wanted = np.take_along_axis(cosines, expected, axis=1)
    np.testing.assert_allclose(similarity, wanted, atol=1e-6)


def test_padding_is_not_a_neighbor_of_a_query_opposite_to_all_rows(monkeypatch):
    monkeypatch.setattr(nearest_neighbors, "BANK_AT_ONCE", 2)
    bank = np.ones((5, 2), np.float32)
    queries = -jnp.ones((1, 2)) / jnp.sqrt(2.0)
    similarity, rows = found(bank, np.asarray(queries), 5, num_devices=4)
    np.testing.assert_array_equal(rows, [[0, 1, 2, 3, 4]])
    np.testing.assert_allclose(similarity, -np.ones((1, 5)), atol=1e-6)


def test_no_similarity_matrix_is_wider_than_a_tile(monkeypatch):
    monkeypatch.setattr(nearest_neighbors, "BANK_AT_ONCE", 8)
    mesh = make_mesh(jax.devices()[:1])
    data = Features(np.ones((100, 3), np.float32), np.zeros(100, np.int32))
    bank = nearest_neighbors.make_bank(data, mesh)
    traced = jax.make_jaxpr(lambda queries: nearest_neighbors.nearest(queries, bank, 2))
    program = str(traced(jnp.ones((4, 3))))
    assert "f32[4,8]" in program
    assert "f32[4,100]" not in program
