import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.losses import (
    cosine_affinity,
    different_image,
    donsker_varadhan,
    jensen_shannon,
    mine_difference,
    same_image,
)

SCORES = np.array([-100.0, -3.0, -0.5, 0.0, 0.5, 3.0, 100.0], np.float32)


def random_scores(seed, scale=2.0):
    """Scores of 5 positive and 7 negative pairs."""
    positive, negative = jax.random.split(jax.random.key(seed))
    return (
        scale * jax.random.normal(positive, (5,)),
        scale * jax.random.normal(negative, (7,)),
    )


def test_pair_losses_are_the_softplus_in_float64():
    for loss, sign in ((same_image, -1), (different_image, 1)):
        expected = np.logaddexp(0, sign * SCORES.astype(np.float64))
        np.testing.assert_allclose(
            loss(jnp.array(SCORES)), expected, rtol=1e-6, atol=1e-30
        )


def test_regressor_learns_large_scores_for_one_image_and_repulsion_small_ones():
    scores = jnp.array(SCORES[1:-1])
    assert (jax.vmap(jax.grad(same_image))(scores) < 0).all()
    assert (jax.vmap(jax.grad(different_image))(scores) > 0).all()


def test_jensen_shannon_is_log_four_if_all_scores_are_zero():
    loss = jensen_shannon(jnp.zeros(3), jnp.zeros((2, 4)))
    np.testing.assert_allclose(loss, np.log(4), rtol=1e-6)


def test_jensen_shannon_is_a_mean_over_each_kind_of_pair():
    positive, negative = (np.asarray(x, np.float64) for x in random_scores(0))
    expected = np.logaddexp(0, -positive).mean() + np.logaddexp(0, negative).mean()
    loss = jensen_shannon(*random_scores(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_jensen_shannon_is_lower_for_scores_that_distinguish_the_pairs():
    three = jnp.full(4, 3.0)
    right, wrong = jensen_shannon(three, -three), jensen_shannon(-three, three)
    assert right < np.log(4) < wrong


def test_mine_difference_is_negatives_mean_minus_positives():
    positive, negative = random_scores(1)
    expected = np.mean(negative) - np.mean(positive)
    loss = mine_difference(positive, negative)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_donsker_varadhan_equals_numpy_in_float64():
    positive, negative = (np.asarray(x, np.float64) for x in random_scores(2))
    expected = np.log(np.exp(negative).mean()) - positive.mean()
    loss = donsker_varadhan(*random_scores(2))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_donsker_varadhan_is_never_below_its_relaxation(seed):
    scores = random_scores(seed)
    assert donsker_varadhan(*scores) >= mine_difference(*scores) - 1e-6


def test_donsker_varadhan_stays_finite_for_scores_beyond_exp_of_float32():
    loss = donsker_varadhan(jnp.zeros(2), jnp.array([1000.0, 0.0]))
    np.testing.assert_allclose(loss, 1000 - np.log(2), rtol=1e-6)


def test_cosine_affinity_is_symmetric_bounded_and_one_for_equal_directions():
    first, second = 10 * jax.random.normal(jax.random.key(3), (2, 20, 2))
    affinity = cosine_affinity(first, second)
    assert affinity.shape == (20,)
    assert (jnp.abs(affinity) <= 1 + 1e-6).all()
    assert (affinity == cosine_affinity(second, first)).all()
    np.testing.assert_allclose(cosine_affinity(first, 3 * first), 1.0, rtol=1e-6)


def test_descending_cosine_affinity_moves_a_pair_apart():
    first, second = jax.random.normal(jax.random.key(4), (2, 3))
    gradient = jax.grad(cosine_affinity)(first, second)
    moved = cosine_affinity(first - 0.1 * gradient, second)
    assert moved < cosine_affinity(first, second)
