import numpy as np
import pytest

from logo_jax.data.splits import held_out


def test_every_row_is_once_either_trained_on_or_held_out_by_the_seed():
    train, val = held_out(50, 0.2, seed=0)
    assert len(val) == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(50))
    np.testing.assert_array_equal(held_out(50, 0.2, seed=0)[1], val)
    assert np.any(held_out(50, 0.2, seed=1)[1] != val)
    assert np.any(val != np.arange(40, 50))


@pytest.mark.parametrize(("size", "fraction"), [(2, 0.2), (10, 1.0), (10, 0.0)])
def test_a_part_that_would_be_empty_is_refused(size, fraction):
    with pytest.raises(ValueError, match="leaves none to train or to validate on"):
        held_out(size, fraction, seed=0)
