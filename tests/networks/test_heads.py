import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.networks import heads


def init(module, size):
    return module.init(jax.random.key(0), jnp.ones((1, 2, size)), train=True)


def shapes(params):
    """Returns the shape of every parameter, by layer."""
    return {
        layer: {name: value.shape for name, value in entry.items()}
        for layer, entry in params.items()
    }


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


NORM = {"scale": (6,), "bias": (6,)}


def test_moco_head_is_two_biased_layers_without_norm():
    variables = init(heads.moco_head(6, 3), 4)
    assert list(variables) == ["params"]
    assert shapes(variables["params"]) == {
        "fc0": {"kernel": (4, 6), "bias": (6,)},
        "fc1": {"kernel": (6, 3), "bias": (3,)},
    }


def test_moco_head_has_a_relu_between_its_layers_and_none_at_the_end():
    head = heads.moco_head(2, 1)
    params = {
        "fc0": {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.zeros(2)},
        "fc1": {"kernel": jnp.array([[-1.0], [-3.0]]), "bias": jnp.ones(1)},
    }
    y = head.apply({"params": params}, jnp.array([[2.0], [-2.0]]), train=True)
    assert y.tolist() == [[-1.0], [-5.0]]


@pytest.mark.parametrize("layers", [2, 3])
def test_simsiam_head_has_a_norm_on_every_layer_and_no_bias_before_one(layers):
    variables = init(heads.simsiam_head(layers, 6, 3), 4)
    sizes = [4, *[6] * (layers - 1), 3]
    expected = {f"fc{i}": {"kernel": tuple(sizes[i : i + 2])} for i in range(layers)}
    expected |= {f"bn{i}": NORM for i in range(layers - 1)}
    assert shapes(variables["params"]) == expected
    stats = {f"bn{i}": sizes[i + 1] for i in range(layers)}
    assert {k: v["var"].size for k, v in variables["batch_stats"].items()} == stats


def test_simsiam_heads_output_is_normalized():
    head = heads.simsiam_head(2, 6, 3)
    x = jax.random.normal(jax.random.key(1), (1, 16, 4))
    y = head.apply(init(head, 4), x, train=True, mutable=["batch_stats"])[0][0]
    np.testing.assert_allclose(y.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1.0, atol=1e-2)


def test_byol_head_has_a_norm_in_the_middle_alone_and_a_bias_at_the_end_alone():
    variables = init(heads.byol_head(6, 3), 4)
    assert shapes(variables["params"]) == {
        "fc0": {"kernel": (4, 6)},
        "bn0": NORM,
        "fc1": {"kernel": (6, 3), "bias": (3,)},
    }


def test_simsiam_predictor_is_a_bottleneck_with_a_free_output():
    variables = init(heads.simsiam_predictor(6, 3), 3)
    assert shapes(variables["params"]) == {
        "fc0": {"kernel": (3, 6)},
        "bn0": NORM,
        "fc1": {"kernel": (6, 3), "bias": (3,)},
    }


def test_released_regressor_has_132865_parameters_for_128_dimensions():
    regressor = heads.Regressor(256, depth=2)
    variables = jax.eval_shape(lambda: init(regressor, 2 * 128))
    assert count(variables["params"]) == 132_865


def test_regressor_has_as_many_hidden_layers_as_its_depth():
    params = init(heads.Regressor(6, depth=5), 4)["params"]["mlp"]
    assert sorted(params) == [f"bn{i}" for i in range(5)] + [f"fc{i}" for i in range(6)]


def test_regressor_gives_one_score_for_each_pair():
    regressor = heads.Regressor(6, depth=2)
    y, _ = regressor.apply(
        init(regressor, 4), jnp.ones((1, 5, 4)), train=True, mutable=["batch_stats"]
    )
    assert y.shape == (1, 5)


def test_scores_take_both_signs():
    regressor = heads.Regressor(6, depth=2)
    pairs = jax.random.normal(jax.random.key(1), (1, 32, 4))
    variables = init(regressor, 4)
    params = variables["params"]["mlp"]
    params["fc2"]["bias"] = jnp.zeros(1)
    params["fc2"]["kernel"] = jnp.array([1.0, -1.0] * 3)[:, None]
    y, _ = regressor.apply(variables, pairs, train=True, mutable=["batch_stats"])
    assert y.min() < 0 < y.max()


def test_training_changes_nothing_but_the_running_statistics():
    regressor = heads.Regressor(6, depth=2)
    before = init(regressor, 4)
    pairs = jax.random.normal(jax.random.key(1), (1, 5, 4))
    _, after = regressor.apply(before, pairs, train=True, mutable=True)
    assert sorted(after) == ["batch_stats", "params"]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), dict(before), dict(after))
    assert all(jax.tree.leaves(same["params"]))
    assert not any(jax.tree.leaves(same["batch_stats"]))
