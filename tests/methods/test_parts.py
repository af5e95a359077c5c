import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.methods.parts import join_rows, mean_of_parts, split_rows


@pytest.mark.parametrize("shape", [(6, 2, 3), (6, 0, 3)])  # no local crops: 0 views
def test_parts_are_contiguous_rows_and_can_be_joined(shape):
    x = jnp.arange(np.prod(shape)).reshape(shape)
    parts = split_rows({"x": x}, 3, axis=0)["x"]
    np.testing.assert_array_equal(parts, [x[:2], x[2:4], x[4:]])
    views = jnp.swapaxes(x, 0, 1)
    of_views = split_rows(views, 3, axis=1)
    np.testing.assert_array_equal(of_views[1], views[:, 2:4])
    for joined, whole in ((join_rows(parts, 0), x), (join_rows(of_views, 1), views)):
        np.testing.assert_array_equal(joined, whole)


def test_the_mean_of_parts_keeps_the_dtype():
    found = mean_of_parts({"mean": jnp.array([[1.0], [2.0]]), "n": jnp.array([3, 3])})
    np.testing.assert_array_equal(found["mean"], [1.5])
    assert found["n"] == 3
    assert found["n"].dtype == jnp.int32
