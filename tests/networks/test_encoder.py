import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from logo_jax.networks import heads
from logo_jax.networks.encoder import Encoder


class Pool(nn.Module):
    """A backbone with one parameter: the mean over pixels times a factor."""

    @nn.compact
    def __call__(self, x, *, train):
        del train
        return self.param("factor", nn.initializers.ones, ()) * x.mean((-3, -2))


def test_encoder_is_the_head_of_the_backbones_features():
    encoder = Encoder(Pool(), heads.simsiam_head(2, 6, 4))
    images = jax.random.normal(jax.random.key(1), (5, 2, 2, 3))
    variables = encoder.init(jax.random.key(0), images[None], train=True)
    assert sorted(variables["params"]) == ["backbone", "head"]
    features = encoder.apply(variables, images, method="features")
    np.testing.assert_allclose(features, jnp.mean(images, (1, 2)), rtol=1e-6)
    projected = encoder.apply(variables, features, method="project")
    whole = encoder.apply(variables, images, train=False)
    np.testing.assert_allclose(projected, whole, rtol=1e-6)
