import jax
import jax.numpy as jnp
import numpy as np

from logo_jax.networks.layers import Linear


def params_of(inputs, features):
    module = Linear(features)
    return module.init(jax.random.key(0), jnp.ones((1, inputs)))["params"]


def test_weights_and_bias_start_uniform_up_to_one_over_the_root_of_the_inputs():
    bound = 1 / np.sqrt(16)
    for values in params_of(16, 512).values():
        largest = jnp.abs(values).max()
        assert 0.95 * bound < largest <= bound
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.1)
        np.testing.assert_allclose(values.mean(), 0.0, atol=0.1 * bound)


def test_output_is_the_product_plus_the_bias():
    params = {
        "kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]),
        "bias": jnp.array([5.0, 6.0]),
    }
    x = jnp.array([[[1.0, 10.0]]])
    y = Linear(2).apply({"params": params}, x)
    assert y.tolist() == [[[36.0, 48.0]]]


def test_layer_without_bias_has_weights_alone():
    module = Linear(2, use_bias=False)
    assert list(module.init(jax.random.key(0), jnp.ones((1, 3)))["params"]) == [
        "kernel"
    ]


def test_parameters_stay_float32_in_bfloat16_computation():
    module = Linear(2, dtype=jnp.bfloat16)
    y, variables = module.init_with_output(jax.random.key(0), jnp.ones((1, 3)))
    assert y.dtype == jnp.bfloat16
    assert {v.dtype for v in variables["params"].values()} == {jnp.dtype("float32")}
