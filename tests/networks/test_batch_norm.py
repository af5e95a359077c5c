import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from logo_jax.networks.batch_norm import BatchNorm

MOMENTUM, EPSILON = 0.9, 1e-5


def data(views=2, batch=8, channels=3, seed=0):
    """Returns images [v, b, 2, 2, c] whose moments differ by view and example."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(views, batch, 2, 2, channels))
    spread = 1 + np.arange(views).reshape(-1, 1, 1, 1, 1)
    offset = np.arange(batch).reshape(1, -1, 1, 1, 1) / 2
    return jnp.asarray(spread * (values + offset), jnp.float32)


def variables_of(norm, x):
    """Returns scales and biases other than 1 and 0, and initial statistics."""
    variables = norm.init(jax.random.key(0), x, train=True)
    channels = x.shape[-1]
    params = {
        name: leaf + jnp.arange(1.0, channels + 1) / 10
        for name, leaf in variables.get("params", {}).items()
    }
    return {"params": params, "batch_stats": variables["batch_stats"]}


def train(norm, variables, x):
    """Returns (output, variables with updated statistics)."""
    y, moved = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    return y, variables | moved


def assert_stats(variables, mean, var):
    stats = variables["batch_stats"]
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-5, atol=1e-6)


def moments(x):
    """Returns mean and unbiased variance [c] in float64."""
    flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return flat.mean(0), flat.var(0, ddof=1)


def test_output_is_normalized_by_the_biased_variance_then_scaled_and_shifted():
    x = data(views=1)
    norm = BatchNorm()
    variables = variables_of(norm, x)
    y, _ = train(norm, variables, x)
    flat = np.asarray(x, np.float64)
    axes = (0, 1, 2, 3)
    unit = (flat - flat.mean(axes)) / np.sqrt(flat.var(axes) + EPSILON)
    params = {k: np.asarray(v) for k, v in variables["params"].items()}
    np.testing.assert_allclose(y, unit * params["scale"] + params["bias"], atol=1e-5)


def test_two_views_together_equal_two_consecutive_calls():
    x = data(views=2)
    norm = BatchNorm()
    variables = variables_of(norm, x)
    together, stacked = train(norm, variables, x)
    first, after_first = train(norm, variables, x[:1])
    second, after_both = train(norm, after_first, x[1:])
    np.testing.assert_allclose(together, jnp.concatenate([first, second]), atol=1e-6)
    assert_stats(stacked, *after_both["batch_stats"].values())


def test_statistics_move_for_the_first_view_first():
    x = data(views=3)
    _, moved = train(BatchNorm(), variables_of(BatchNorm(), x), x)
    mean, var = np.zeros(3), np.ones(3)
    for view in x:
        view_mean, view_var = moments(view)
        mean = MOMENTUM * mean + 0.1 * view_mean
        var = MOMENTUM * var + 0.1 * view_var
    assert_stats(moved, mean, var)
    _, reversed_order = train(BatchNorm(), variables_of(BatchNorm(), x), x[::-1])
    assert np.abs(reversed_order["batch_stats"]["mean"] - mean).max() > 1e-2


def test_running_variance_moves_by_n_over_n_minus_one_of_the_batchs():
    x = jnp.array([[[1.0], [-1.0], [1.0], [-1.0]]])
    _, moved = train(BatchNorm(), variables_of(BatchNorm(), x), x)
    assert_stats(moved, [0.0], [MOMENTUM + 0.1 * 4 / 3])


@pytest.mark.parametrize("splits", [2, 4])
def test_splits_equal_separate_batches_with_their_statistics_averaged(splits):
    x = data(views=2)
    norm = BatchNorm(splits=splits)
    variables = variables_of(norm, x)
    y, moved = train(norm, variables, x)
    parts = [
        train(BatchNorm(), variables, part) for part in jnp.split(x, splits, axis=1)
    ]
    expected = jnp.concatenate([part for part, _ in parts], axis=1)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    stats = [part["batch_stats"] for _, part in parts]
    mean = np.mean([s["mean"] for s in stats], axis=0)
    assert_stats(moved, mean, np.mean([s["var"] for s in stats], axis=0))


def test_batch_that_splits_do_not_divide_is_refused():
    norm = BatchNorm(splits=3)
    with pytest.raises(ValueError, match="split:3 needs a batch per device divisible"):
        norm.init(jax.random.key(0), data(batch=8), train=True)


def shard(norm, variables, x):
    """Trains with the batch split over four devices."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = P(None, "data")
    return jax.jit(
        jax.shard_map(
            lambda variables, x: train(norm, variables, x),
            mesh=mesh,
            in_specs=(P(), batch),
            out_specs=(batch, P()),
        )
    )(variables, x)


def test_four_devices_with_an_axis_name_equal_one_device():
    x = data(views=2)
    variables = variables_of(BatchNorm(), x)
    y, moved = shard(BatchNorm(axis_name="data"), variables, x)
    expected, one = train(BatchNorm(), variables, x)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert_stats(moved, *one["batch_stats"].values())


def test_evaluation_uses_running_statistics_and_leaves_them():
    x = data(views=1)
    norm = BatchNorm()
    variables = variables_of(norm, x)
    variables["batch_stats"] = {
        "mean": jnp.array([1.0, 2.0, 3.0]),
        "var": jnp.array([4.0, 1.0, 0.25]),
    }
    images = x[0]
    y, after = norm.apply(variables, images, train=False, mutable=["batch_stats"])
    stats = {k: np.asarray(v) for k, v in variables["batch_stats"].items()}
    params = {k: np.asarray(v) for k, v in variables["params"].items()}
    unit = (np.asarray(images) - stats["mean"]) / np.sqrt(stats["var"] + EPSILON)
    np.testing.assert_allclose(y, unit * params["scale"] + params["bias"], atol=1e-5)
    for name, value in after.get("batch_stats", stats).items():
        np.testing.assert_array_equal(value, stats[name])


def test_initializing_in_training_mode_leaves_statistics_at_zero_and_one():
    variables = BatchNorm().init(jax.random.key(0), 5 + data(), train=True)
    assert_stats(variables, np.zeros(3), np.ones(3))


@pytest.mark.parametrize(("zero_scale", "factor"), [(False, 1.0), (True, 0.0)])
def test_scale_starts_at_one_or_with_zero_scale_at_zero(zero_scale, factor):
    norm = BatchNorm(zero_scale=zero_scale)
    params = norm.init(jax.random.key(0), data(), train=True)["params"]
    np.testing.assert_array_equal(params["scale"], np.full(3, factor))
    np.testing.assert_array_equal(params["bias"], np.zeros(3))


def test_norm_without_scale_and_bias_has_no_parameters():
    norm = BatchNorm(use_scale=False, use_bias=False)
    assert "params" not in norm.init(jax.random.key(0), data(), train=True)


def test_large_offset_does_not_cancel_the_variance():
    x = data(views=1)
    norm = BatchNorm()
    variables = variables_of(norm, x)
    expected, _ = train(norm, variables, x)
    shifted, _ = train(norm, variables, x + 1000)
    np.testing.assert_allclose(shifted, expected, atol=1e-3)


@pytest.mark.parametrize("splits", [1, 2])
def test_gradient_equals_that_of_the_formula(splits):
    x = data(views=2)
    norm = BatchNorm(splits=splits)
    variables = variables_of(norm, x)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)

    def loss(params, x):
        y, _ = norm.apply(
            variables | {"params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(weights * jnp.square(y))

    def by_formula(params, x):
        groups = x.reshape(2 * splits, -1, *x.shape[2:])
        axes = (1, 2, 3)
        mean = groups.mean(axes, keepdims=True)
        var = groups.var(axes, keepdims=True)
        unit = ((groups - mean) / jnp.sqrt(var + EPSILON)).reshape(x.shape)
        scale, bias = (
            params[name].reshape(1, 1, 1, 1, 3) for name in ("scale", "bias")
        )
        return jnp.sum(weights * jnp.square(unit * scale + bias))

    params = variables["params"]
    ours = jax.grad(loss, (0, 1))(params, x)
    expected = jax.grad(by_formula, (0, 1))(params, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        ours,
        expected,
    )


def test_bfloat16_output_comes_from_float32_statistics():
    x = data().astype(jnp.bfloat16)
    norm = BatchNorm(dtype=jnp.bfloat16)
    y, moved = train(norm, variables_of(norm, x), x)
    assert y.dtype == jnp.bfloat16
    assert {v.dtype for v in moved["batch_stats"].values()} == {jnp.dtype("float32")}
    exact, _ = train(BatchNorm(), variables_of(BatchNorm(), x), x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=2e-2)
