import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.losses import sinkhorn, swapped_prediction

USUAL = {"epsilon": 0.05, "iterations": 3}


def draw(*shape, seed=0):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1.0, maxval=1.0)


def released(scores, epsilon, iterations):
    """SwAV's distributed_sinkhorn on one device, line by line."""
    q = np.exp(np.asarray(scores, np.float64) / epsilon).T
    q /= q.sum()
    num_prototypes, num_images = q.shape
    for _ in range(iterations):
        q *= (1 / num_prototypes / q.sum(1))[:, None]
        q *= (1 / num_images / q.sum(0))[None, :]
    return (q / q.sum(0, keepdims=True)).T


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_codes_equal_the_released_ones_in_float64(epsilon, iterations):
    scores = draw(12, 5)
    codes = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    np.testing.assert_allclose(codes, released(scores, epsilon, iterations), atol=1e-5)


def test_every_image_has_a_distribution_after_any_number_of_iterations():
    codes = sinkhorn(draw(64, 10), epsilon=0.05, iterations=1)
    assert (codes >= 0).all()
    np.testing.assert_allclose(codes.sum(1), np.ones(64), rtol=2e-6)


def test_prototypes_get_equal_weight_after_many_iterations():
    scores = draw(64, 8) + 0.2 * jnp.arange(8.0)[None]  # the last is the most similar
    codes = sinkhorn(scores, epsilon=0.05, iterations=100)
    np.testing.assert_allclose(codes.sum(0), np.full(8, 64 / 8), rtol=1e-2)


def test_equal_images_get_uniform_codes():
    codes = sinkhorn(jnp.tile(draw(1, 4), (6, 1)), **USUAL)
    np.testing.assert_allclose(codes, np.full((6, 4), 1 / 4), rtol=1e-5)


def test_a_constant_added_to_all_scores_changes_nothing():
    scores = draw(12, 5)
    np.testing.assert_allclose(
        sinkhorn(scores, **USUAL), sinkhorn(scores + 3.0, **USUAL), atol=1e-4
    )


@pytest.mark.parametrize("factor", [1e3, -1e3, 1e30])
def test_scores_far_beyond_exp_of_float32_give_finite_codes(factor):
    codes = sinkhorn(factor * draw(12, 5), **USUAL)
    assert jnp.isfinite(codes).all()
    np.testing.assert_allclose(codes.sum(1), np.ones(12), rtol=1e-5)


def oracle(codes, scores, temperature):
    codes, scores = (np.asarray(x, np.float64) for x in (codes, scores))
    losses = np.empty((len(scores), len(codes), codes.shape[1]))
    for s, t, i in np.ndindex(losses.shape):
        powers = np.exp(scores[s, i] / temperature)
        losses[s, t, i] = -codes[t, i] @ np.log(powers / powers.sum())
    return losses


def inputs(targets=2, predictions=3, batch=4, prototypes=5):
    codes = jax.nn.softmax(5 * draw(targets, batch, prototypes, seed=1))
    return codes, draw(predictions, batch, prototypes, seed=2)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_equals_loops_in_float64(temperature):
    loss = swapped_prediction(*inputs(), temperature=temperature)
    expected = oracle(*inputs(), temperature)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-6)


def test_gradient_is_prediction_minus_code_over_temperature():
    codes, scores = inputs(targets=1, predictions=1)
    gradient = jax.grad(lambda s: swapped_prediction(codes, s, temperature=0.5).sum())(
        scores
    )
    expected = (jax.nn.softmax(scores / 0.5) - codes) / 0.5
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_scores_that_overflow_exp_leave_loss_and_gradient_finite():
    codes, scores = inputs()
    values = jax.value_and_grad(
        lambda s: swapped_prediction(codes, s, temperature=1e-3).sum()
    )(scores)
    assert all(jnp.isfinite(x).all() for x in values)


@pytest.mark.parametrize("epsilon", [0.0, -0.05])
def test_epsilon_that_is_not_positive_is_refused(epsilon):
    with pytest.raises(ValueError, match=f"epsilon={epsilon} must be positive"):
        sinkhorn(draw(2, 2), epsilon=epsilon, iterations=3)


def test_sinkhorn_without_an_iteration_is_refused():
    with pytest.raises(ValueError, match="iterations=0 must be positive"):
        sinkhorn(draw(2, 2), epsilon=0.05, iterations=0)


@pytest.mark.parametrize("temperature", [0.0, -0.1])
def test_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature} must be positive"):
        swapped_prediction(*inputs(), temperature=temperature)
