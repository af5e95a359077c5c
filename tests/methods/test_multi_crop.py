import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.methods.base import Batch
from logo_jax.methods.multi_crop import encode, split_views
from logo_jax.networks.batch_norm import BatchNorm


class PooledNet(nn.Module):
    """Linear, batch norm, ReLU, mean over pixels, batch norm."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4, name="fc", use_bias=False)(x)
        x = nn.relu(BatchNorm(name="bn0")(x, train=train)).mean((-3, -2))
        return BatchNorm(name="bn1")(x, train=train)


def test_views_of_a_batch_are_the_global_crops_then_the_local_ones():
    global_crops = jnp.arange(2.0)[None, :, None, None, None] * jnp.ones(
        (3, 2, 4, 4, 1)
    )
    batch = Batch(global_crops, 2 + global_crops[:, :, :2, :2])
    split = split_views(batch)
    assert [view.shape for view in split] == [(3, 4, 4, 1)] * 2 + [(3, 2, 2, 1)] * 2
    assert [view.mean().item() for view in split] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.slow
def test_encoding_views_together_equals_encoding_one_after_the_other():
    rng = np.random.default_rng(0)
    sizes = (4, 4, 2, 2, 2, 4)
    crops = [
        jnp.asarray(i + rng.normal(size=(3, size, size, 2)), jnp.float32)
        for i, size in enumerate(sizes)
    ]
    net = PooledNet()
    variables = net.init(jax.random.key(0), crops[0][None], train=True)
    together, moved, _ = encode(net, variables, crops)
    one_by_one = []
    for crop in crops:
        embedding, stats, _ = encode(net, variables, [crop])
        variables = variables | {"batch_stats": stats}
        one_by_one.append(embedding[0])
    np.testing.assert_allclose(together, jnp.stack(one_by_one), atol=1e-5)
    for got, want in zip(jax.tree.leaves(moved), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_network_without_statistics_encodes_and_keeps_none():
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            del train
            return nn.Dense(2)(x)

    view = jnp.ones((3, 5))
    params = Flat().init(jax.random.key(0), view, train=True)["params"]
    variables = {"params": params, "batch_stats": {}}
    embeddings, stats, _ = encode(Flat(), variables, [view, 2 * view])
    assert embeddings.shape == (2, 3, 2)
    assert stats == {}


def test_only_the_first_views_update_running_statistics():
    module = BatchNorm()
    views_ = list(jax.random.normal(jax.random.key(0), (4, 8, 3)))
    variables = module.init(jax.random.key(1), views_[0][None], train=True)
    everything, _, _ = encode(module, variables, views_)
    embeddings, moved, _ = encode(module, variables, views_, num_updating_stats=2)
    np.testing.assert_allclose(embeddings, everything, atol=1e-6)
    _, globals_only, _ = encode(module, variables, views_[:2])
    jax.tree.map(np.testing.assert_array_equal, moved, globals_only)
    _, still, _ = encode(module, variables, views_, num_updating_stats=0)
    jax.tree.map(np.testing.assert_array_equal, still, variables["batch_stats"])
