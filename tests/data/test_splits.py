import numpy as np

from logo_jax.data.splits import ValidationSplit


def held_out(size, count, seed=0):
    labels = {"train": np.zeros(size), "test": np.zeros(0)}
    rows = ValidationSplit(count).draw(labels, np.random.default_rng(seed))
    return rows["train"].indices, rows["val"].indices


def test_every_row_is_once_either_trained_on_or_held_out_by_the_seed():
    train, val = held_out(50, 10)
    assert len(val) == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(50))
    np.testing.assert_array_equal(held_out(50, 10)[1], val)
    assert np.any(held_out(50, 10, seed=1)[1] != val)
    assert np.any(val != np.arange(40, 50))
