import jax.numpy as jnp
import numpy as np
import optax
import pytest

from logo_jax import optim


def steps(tx, params, gradients, **extra):
    """The parameters after each step."""
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params, **extra)
        params = optax.apply_updates(params, updates)
        yield params


def test_sgd_decays_then_gathers_momentum_then_applies_the_rate():
    rates = jnp.array([0.1, 0.2, 0.1])
    tx = optim.sgd(lambda count: rates[count], momentum=0.5, weight_decay=0.1)
    gradients = [jnp.array(g) for g in (1.0, 0.0, -1.0)]
    # buffers 1 + .1 x 1 = 1.1; .55 + .089 = .639; .3195 - 1 + .07622 = -.60428
    expected = [1 - 0.1 * 1.1, 0.89 - 0.2 * 0.639, 0.7622 + 0.1 * 0.60428]
    followed = list(steps(tx, jnp.array(1.0), gradients))
    np.testing.assert_allclose(followed, expected, rtol=1e-6)


def test_cosine_schedule_goes_from_peak_through_half_to_zero():
    rate = optim.cosine_schedule(0.4, num_steps=10)
    rates = [float(rate(i)) for i in (0, 5, 10)]
    np.testing.assert_allclose(rates, [0.4, 0.2, 0.0], atol=1e-7)


def test_warmup_is_linear_and_the_cosine_starts_at_its_end():
    rate = optim.cosine_schedule(0.4, num_steps=14, warmup_steps=4)
    rates = [float(rate(i)) for i in (0, 1, 2, 4, 9, 14)]
    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.4, 0.2, 0.0], atol=1e-7)


def test_step_schedule_drops_at_each_milestone_itself():
    rate = optim.step_schedule(2.0, milestones=[3, 5], factor=0.1)
    rates = [float(rate(i)) for i in (0, 2, 3, 4, 5, 9)]
    np.testing.assert_allclose(rates, [2, 2, 0.2, 0.2, 0.02, 0.02], rtol=1e-5)


def clip(gradients, max_norm):
    tx = optim.clip_to_norm()
    state = tx.init(gradients)
    return tx.update(gradients, state, max_norm=jnp.array(max_norm))[0]


GRADIENTS = {"a": jnp.array([3.0]), "b": jnp.array([[0.0, 4.0]])}


def test_gradients_beyond_the_norm_shrink_to_it_and_keep_their_direction():
    clipped = clip(GRADIENTS, 2.5)
    np.testing.assert_allclose(clipped["a"], [1.5], rtol=1e-5)
    np.testing.assert_allclose(clipped["b"], [[0.0, 2.0]], rtol=1e-5)


@pytest.mark.parametrize("max_norm", [5.1, 1000.0])
def test_gradients_within_the_norm_are_left_alone(max_norm):
    clipped = clip(GRADIENTS, max_norm)
    assert all((clipped[name] == GRADIENTS[name]).all() for name in GRADIENTS)


def test_zero_gradients_clipped_to_zero_stay_zero():
    assert clip({"a": jnp.zeros(2)}, 0.0)["a"].tolist() == [0.0, 0.0]


def test_decay_is_not_clipped_with_the_gradient():
    tx = optim.clipped_sgd(0.5, momentum=0.9, weight_decay=0.1)
    gradients = [jnp.array([100.0])]
    (moved,) = steps(tx, jnp.array([2.0]), gradients, max_norm=jnp.array(0.0))
    np.testing.assert_allclose(moved, [2 - 0.5 * 0.1 * 2], rtol=1e-6)


def test_momentum_gathers_clipped_gradients():
    tx = optim.clipped_sgd(1.0, momentum=0.5, weight_decay=0.0)
    gradients = [jnp.array([100.0]), jnp.array([0.0])]
    followed = list(steps(tx, jnp.array([0.0]), gradients, max_norm=jnp.array(1.0)))
    np.testing.assert_allclose(followed, [[-1.0], [-1.5]], rtol=1e-5)


def test_each_network_has_its_own_rate():
    rates = {"encoder": 0.1, "predictor": 1.0}
    tx = optim.by_network(
        {
            name: optim.sgd(rate, momentum=0.0, weight_decay=0.0)
            for name, rate in rates.items()
        }
    )
    params = {name: {"fc": {"kernel": jnp.array([3.0])}} for name in rates}
    gradients = {name: {"fc": {"kernel": jnp.array([1.0])}} for name in rates}
    (moved,) = steps(tx, params, [gradients])
    np.testing.assert_allclose(moved["encoder"]["fc"]["kernel"], [2.9], rtol=1e-6)
    np.testing.assert_allclose(moved["predictor"]["fc"]["kernel"], [2.0], rtol=1e-6)
