import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.nnx import bridge

from logo_jax.methods.multi_crop import encode
from logo_jax.networks.folded_views import FoldedViews
from tests.own_backbones import ConvNeXt, NNXNet

IMAGES = jax.random.normal(jax.random.key(1), (2, 3, 8, 8, 3))


class Noting(nn.Module):
    """Linear features, and whether it is in training mode."""

    @nn.compact
    def __call__(self, x, train):
        mode = jnp.full((len(x), 1), float(train))
        return jnp.concatenate([nn.Dense(2)(x.mean((1, 2))), mode], axis=-1)


@pytest.mark.slow
def test_views_are_encoded_as_one_batch_with_the_modules_own_variables():
    folded = FoldedViews(ConvNeXt())
    variables = folded.init(jax.random.key(0), IMAGES[0], train=False)
    alone = ConvNeXt().init(jax.random.key(0), IMAGES[0])
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, alone)
    features = folded.apply(variables, IMAGES, train=True)
    for view, images in zip(features, IMAGES, strict=True):
        expected = ConvNeXt().apply(variables, images)
        np.testing.assert_allclose(view, expected, rtol=1e-5, atol=1e-6)


def test_features_are_float32_if_the_module_computes_in_bfloat16():
    folded = FoldedViews(nn.Sequential([lambda x: x.mean((1, 2)).astype(jnp.bfloat16)]))
    assert folded.apply({}, IMAGES, train=False).dtype == jnp.float32


def test_train_is_passed_to_a_module_that_takes_it():
    folded = FoldedViews(Noting())
    variables = folded.init(jax.random.key(0), IMAGES[0], train=False)
    for train in (True, False):
        features = folded.apply(variables, IMAGES, train=train)
        np.testing.assert_array_equal(features[..., -1], float(train))


def nnx_net():
    """Returns an NNX module with a batch norm, and its variables."""
    wrapped = bridge.ToLinen(NNXNet, kwargs={"width": 2}, metadata_fn=None)
    folded = FoldedViews(wrapped)
    return folded, folded.init(jax.random.key(0), IMAGES[0], train=False)


def test_an_nnx_module_is_in_training_or_evaluation_mode():
    folded, variables = nnx_net()
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["mean"], 0)
    kernel = variables["params"]["conv"]["kernel"]

    def normalized(images, mean, var):
        images = images.reshape(-1, 8, 8, 3)
        x = nn.Conv(4, (3, 3), 2, use_bias=False).apply(
            {"params": {"kernel": kernel}}, images
        )
        if mean is None:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        mean, var = (jnp.reshape(s, (1, 1, 1, -1)) for s in (mean, var))
        return nn.relu((x - mean) / jnp.sqrt(var + 1e-5)).mean((1, 2)), mean

    evaluated = folded.apply(variables, IMAGES[0], train=False)
    expected, _ = normalized(IMAGES[0], jnp.zeros(4), jnp.ones(4))
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-5)
    trained, moved = folded.apply(
        variables, IMAGES, train=True, mutable=["batch_stats"]
    )
    expected, mean = normalized(IMAGES, None, None)  # of both views together
    np.testing.assert_allclose(trained.reshape(6, 4), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        moved["batch_stats"]["norm"]["mean"], 0.1 * mean.ravel(), rtol=1e-4, atol=1e-6
    )


def test_views_that_must_not_update_statistics_do_not():
    folded, variables = nnx_net()
    views = [*IMAGES, *IMAGES + 1]
    stats = [
        encode(
            folded, variables, views[:count], num_updating_stats=updating
        ).batch_stats
        for count, updating in ((2, None), (4, 2), (4, None))
    ]
    before, with_locals, all_views = (s["norm"]["var"] for s in stats)
    np.testing.assert_array_equal(before, with_locals)
    assert np.abs(all_views - before).min() > 1e-3
