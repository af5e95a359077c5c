import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from logo_jax.methods.logo import applied_ratio
from logo_jax.training import optim


def steps(tx, params, gradients, **extra):
    """Yields the parameters after each step."""
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params, **extra)
        params = optax.apply_updates(params, updates)
        yield params


def test_sgd_applies_decay_then_momentum_then_the_rate():
    rates = jnp.array([0.1, 0.2, 0.1])
    tx = optim.sgd(lambda count: rates[count], momentum=0.5, weight_decay=0.1)
    gradients = [jnp.array(g) for g in (1.0, 0.0, -1.0)]
    # momentum: 1 + .1 x 1 = 1.1; .55 + .089 = .639; .3195 - 1 + .07622 = -.60428
    expected = [1 - 0.1 * 1.1, 0.89 - 0.2 * 0.639, 0.7622 + 0.1 * 0.60428]
    followed = list(steps(tx, jnp.array(1.0), gradients))
    np.testing.assert_allclose(followed, expected, rtol=1e-6)


def test_adamw_decays_every_parameter_apart_from_the_gradient():
    rates = jnp.array([0.1, 0.2, 0.1])
    tx = optim.adamw(lambda count: rates[count], momentum=0.5, weight_decay=0.1)
    gradients = [jnp.array(g) for g in (2.0, 2.0, 2.0)]
    # for a constant gradient the normalized mean is 1 from the first step: PyTorch's p
    # becomes p x (1 - rate x decay) - rate
    expected = [0.99 - 0.1, 0.89 * 0.98 - 0.2, 0.6722 * 0.99 - 0.1]
    followed = list(steps(tx, jnp.array(1.0), gradients))
    np.testing.assert_allclose(followed, expected, rtol=1e-5)
    gradients = [jnp.array(g) for g in (2.0, -1.0, 0.3)]
    optaxs = optax.adamw(lambda count: rates[count], 0.5, 0.999, weight_decay=0.1)
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = (list(steps(x, jnp.array(1.0), gradients)) for x in (tx, optaxs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("make", [optim.sgd, optim.adamw, optim.clipped_sgd])
def test_frozen_parameters_keep_their_values_and_have_no_state(make):
    rates = {"momentum": 0.9, "weight_decay": 0.1}
    params = {"encoder": {"patches": {"kernel": jnp.ones(2)}, "fc": jnp.ones(2)}}
    gradients = [jax.tree.map(jnp.zeros_like, params)] * 2
    gradients[0]["encoder"]["fc"] = jnp.array([1.0, -2.0])
    extra = {"max_norm": jnp.array(1.0)} if make is optim.clipped_sgd else {}
    tx = optim.by_network({"encoder": optim.frozen(make(0.1, **rates), "patches")})
    after = list(steps(tx, params, gradients, **extra))[-1]["encoder"]
    np.testing.assert_array_equal(after["patches"]["kernel"], 1.0)
    alone = list(
        steps(make(0.1, **rates), {"fc": jnp.ones(2)},
              [{"fc": g["encoder"]["fc"]} for g in gradients], **extra)
    )[-1]  # fmt: skip
    np.testing.assert_array_equal(after["fc"], alone["fc"])
    shapes = [x.shape for x in jax.tree.leaves(tx.init(params)) if x.ndim]
    assert len(shapes) == (2 if make is optim.adamw else 1)


def test_cosine_schedule_decays_from_peak_through_half_to_zero():
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


def test_milestones_at_the_same_step_both_apply():
    rate = optim.step_schedule(2.0, milestones=[2, 2], factor=0.1)
    np.testing.assert_allclose([float(rate(i)) for i in (1, 2)], [2, 0.02], rtol=1e-5)


def clip(gradients, max_norm):
    tx = optim.clip_to_norm()
    state = tx.init(gradients)
    return tx.update(gradients, state, max_norm=jnp.array(max_norm))[0]


GRADIENTS = {"a": jnp.array([3.0]), "b": jnp.array([[0.0, 4.0]])}


def test_gradients_above_the_norm_are_scaled_to_it():
    clipped = clip(GRADIENTS, 2.5)
    np.testing.assert_allclose(clipped["a"], [1.5], rtol=1e-5)
    np.testing.assert_allclose(clipped["b"], [[0.0, 2.0]], rtol=1e-5)


@pytest.mark.parametrize("max_norm", [5.1, 1000.0])
def test_gradients_below_the_norm_are_unchanged(max_norm):
    clipped = clip(GRADIENTS, max_norm)
    assert all((clipped[name] == GRADIENTS[name]).all() for name in GRADIENTS)


@pytest.mark.parametrize("max_norm", [0.0, 2.5, 5.1])
def test_the_logged_ratio_is_the_factor_of_the_clipping(max_norm):
    ratio = applied_ratio(jnp.array(5.0), jnp.array(max_norm))
    clipped = clip(GRADIENTS, max_norm)
    np.testing.assert_allclose(ratio * GRADIENTS["b"], clipped["b"], rtol=1e-5)


def test_zero_gradients_clipped_to_zero_stay_zero():
    assert clip({"a": jnp.zeros(2)}, 0.0)["a"].tolist() == [0.0, 0.0]


def test_decay_is_not_clipped_with_the_gradient():
    tx = optim.clipped_sgd(0.5, momentum=0.9, weight_decay=0.1)
    gradients = [jnp.array([100.0])]
    (moved,) = steps(tx, jnp.array([2.0]), gradients, max_norm=jnp.array(0.0))
    np.testing.assert_allclose(moved, [2 - 0.5 * 0.1 * 2], rtol=1e-6)


def test_momentum_accumulates_clipped_gradients():
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


def test_target_momentum_rises_from_base_to_one_and_stays():
    momentum = optim.momentum_schedule(0.9, num_steps=8)
    values = [float(momentum(jnp.int32(i))) for i in (0, 2, 4, 8, 9)]
    quarter = 1 - 0.1 * (np.cos(np.pi / 4) + 1) / 2
    np.testing.assert_allclose(values, [0.9, quarter, 0.95, 1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("base", [-0.1, 1.1])
def test_a_momentum_out_of_range_is_refused(base):
    with pytest.raises(ValueError, match=rf"momentum={base} must lie in \[0, 1\]"):
        optim.momentum_schedule(base, num_steps=8)


KINDS = pytest.mark.parametrize("make", [optim.sgd, optim.lars])
RATES = jnp.array([0.1, 0.2, 0.3, 0.4])


@KINDS
def test_after_frozen_steps_training_starts_except_for_the_schedule(make):
    fields = {"momentum": 0.5, "weight_decay": 0.1}
    frozen = make(lambda count: RATES[count], frozen_steps=2, **fields)
    fresh = make(lambda count: RATES[count + 2], **fields)
    start = jnp.array([3.0, -4.0])
    gradients = [jnp.array([g, 1.0]) for g in (5.0, 4.0, -1.0, 2.0)]
    followed = list(steps(frozen, start, gradients))
    np.testing.assert_array_equal(followed[:2], [start, start])
    np.testing.assert_allclose(followed[2:], [*steps(fresh, start, gradients[2:])])
    assert jnp.abs(followed[2] - start).min() > 0


def larc_in_numpy(param, gradients, rate, momentum, weight_decay):
    """apex's LARC wrapper around torch.optim.SGD, in float64 NumPy."""
    buffer = np.zeros_like(param)
    for gradient in gradients:
        size, slope = np.linalg.norm(param), np.linalg.norm(gradient)
        if size and slope:
            adaptive = 0.001 * size / (slope + size * weight_decay + 1e-8)
            gradient = adaptive * (gradient + weight_decay * param)
        buffer = momentum * buffer + gradient
        param = param - rate * buffer
        yield param


PARAMS = {"kernel": np.array([[3.0, -4.0], [1.0, 2.0]]), "bias": np.zeros(2)}


def test_lars_scales_each_array_then_applies_momentum_and_the_rate():
    fields = {"momentum": 0.9, "weight_decay": 0.1}
    random = np.random.default_rng(0)
    gradients = [
        {name: random.normal(size=value.shape) for name, value in PARAMS.items()}
        for _ in range(3)
    ]
    single = [
        {name: jnp.asarray(value, jnp.float32) for name, value in tree.items()}
        for tree in (PARAMS, *gradients)
    ]
    followed = list(steps(optim.lars(4.8, **fields), single[0], single[1:]))
    for name, start in PARAMS.items():
        ours = [params[name] for params in followed]
        theirs = larc_in_numpy(start, [g[name] for g in gradients], 4.8, **fields)
        np.testing.assert_allclose(ours, [*theirs], rtol=1e-5)


def test_lars_leaves_a_parameter_without_a_gradient_undecayed():
    tx = optim.lars(1.0, momentum=0.9, weight_decay=0.1)
    (moved,) = steps(tx, jnp.array([2.0]), [jnp.zeros(1)])
    assert moved.tolist() == [2.0]
