import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.losses import l2_normalize, negative_cosine


def pairs():
    first, second = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    return first, second


def test_normalized_vectors_have_unit_length_and_their_direction():
    vectors = pairs()[0]
    unit = l2_normalize(vectors)
    np.testing.assert_allclose(jnp.linalg.norm(unit, axis=-1), 1.0, rtol=1e-6)
    lengths = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit * lengths, vectors, rtol=1e-5)


def test_zero_vector_stays_zero_and_its_gradient_finite():
    zero = jnp.zeros((1, 3))
    assert (l2_normalize(zero) == 0).all()
    gradient = jax.grad(lambda x: l2_normalize(x).sum())(zero)
    assert jnp.isfinite(gradient).all()


def test_negative_cosine_is_minus_one_for_equal_and_one_for_opposite_vectors():
    vectors = pairs()[0]
    np.testing.assert_allclose(negative_cosine(vectors, vectors), -1.0, rtol=1e-6)
    np.testing.assert_allclose(negative_cosine(vectors, -vectors), 1.0, rtol=1e-6)


def test_negative_cosine_does_not_depend_on_either_length():
    first, second = pairs()
    scaled = negative_cosine(100.0 * first, 0.01 * second)
    np.testing.assert_allclose(scaled, negative_cosine(first, second), atol=1e-6)


def test_negative_cosine_equals_loops_in_float64():
    first, second = pairs()
    expected = np.empty(first.shape[:-1])
    for index in np.ndindex(expected.shape):
        a, b = (np.asarray(x[index], np.float64) for x in (first, second))
        expected[index] = -(a @ b) / np.sqrt(a @ a) / np.sqrt(b @ b)
    np.testing.assert_allclose(negative_cosine(first, second), expected, atol=1e-6)


def test_gradient_at_a_zero_prediction_is_finite():
    targets = pairs()[1]
    gradient = jax.grad(lambda p: negative_cosine(p, targets).sum())(0 * targets)
    assert jnp.isfinite(gradient).all()


def test_gradient_is_orthogonal_to_the_prediction():
    first, second = pairs()
    gradient = jax.grad(lambda p: negative_cosine(p, second).sum())(first)
    np.testing.assert_allclose((gradient * first).sum(-1), 0.0, atol=1e-5)


def test_targets_get_a_gradient_unless_it_is_stopped():
    first, second = pairs()
    flowing = jax.grad(lambda z: negative_cosine(first, z).sum())(second)
    stopped = jax.grad(
        lambda z: negative_cosine(first, jax.lax.stop_gradient(z)).sum()
    )(second)
    assert (flowing != 0).any()
    assert (stopped == 0).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_negative_cosine_keeps_its_arguments_type(dtype):
    loss = negative_cosine(*(x.astype(dtype) for x in pairs()))
    assert loss.dtype == dtype
    assert jnp.isfinite(loss).all()
