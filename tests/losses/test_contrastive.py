import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.losses import info_nce, l2_normalize

TEMPERATURE = 0.2


def embeddings(queries=2, keys=3, batch=4, negatives=6, dim=5):
    shapes = ((queries, batch, dim), (keys, batch, dim), (negatives, dim))
    seeds = jax.random.split(jax.random.key(0), len(shapes))
    return [
        l2_normalize(jax.random.normal(seed, shape))
        for seed, shape in zip(seeds, shapes, strict=True)
    ]


def oracle(queries, keys, negatives, temperature):
    queries, keys, negatives = (
        np.asarray(x, np.float64) for x in (queries, keys, negatives)
    )
    losses = np.empty((len(queries), len(keys), queries.shape[1]))
    for s, t, i in np.ndindex(losses.shape):
        positive = np.exp(queries[s, i] @ keys[t, i] / temperature)
        others = sum(np.exp(queries[s, i] @ n / temperature) for n in negatives)
        losses[s, t, i] = -np.log(positive / (positive + others))
    return losses


def classic(queries, keys, negatives, temperature):
    """Computes MoCo's loss: cross-entropy of label 0 over [positive, negatives]."""
    positive = jnp.einsum("sbd,tbd->stb", queries, keys)[..., None]
    negative = jnp.einsum("sbd,kd->sbk", queries, negatives)[:, None]
    shape = (*positive.shape[:-1], negative.shape[-1])
    logits = jnp.concatenate([positive, jnp.broadcast_to(negative, shape)], axis=-1)
    return -jax.nn.log_softmax(logits / temperature)[..., 0]


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_loss_is_log_of_one_plus_negatives_if_all_similarities_are_equal(
    temperature,
):
    one = jnp.ones((1, 3, 1))
    loss = info_nce(one, one, jnp.ones((7, 1)), temperature=temperature)
    np.testing.assert_allclose(loss, np.full((1, 1, 3), np.log(8)), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_loss_equals_loops_in_float64(temperature):
    arrays = embeddings()
    loss = info_nce(*arrays, temperature=temperature)
    expected = oracle(*arrays, temperature)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-6)


def test_loss_and_gradients_equal_the_concatenated_softmaxs():
    arrays = embeddings()

    def mean_of(loss):
        return jax.value_and_grad(lambda *a: loss(*a).mean(), argnums=(0, 1, 2))

    ours = mean_of(lambda *a: info_nce(*a, temperature=TEMPERATURE))(*arrays)
    theirs = mean_of(lambda *a: classic(*a, TEMPERATURE))(*arrays)
    for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_loss_does_not_depend_on_the_order_of_negatives():
    queries, keys, negatives = embeddings()
    loss = info_nce(queries, keys, negatives, temperature=TEMPERATURE)
    turned = info_nce(queries, keys, negatives[::-1], temperature=TEMPERATURE)
    np.testing.assert_allclose(loss, turned, rtol=1e-5)


def test_similarities_far_beyond_exp_of_float32_stay_finite():
    z = jnp.ones((1, 2, 1))
    losses = jax.value_and_grad(
        lambda q: info_nce(q, -z, jnp.ones((3, 1)), temperature=1e-3).sum()
    )(z)
    assert all(jnp.isfinite(x).all() for x in losses)


def test_bfloat16_embeddings_give_finite_losses_near_float32s():
    arrays = embeddings()
    half = [x.astype(jnp.bfloat16) for x in arrays]
    loss = info_nce(*half, temperature=TEMPERATURE).astype(jnp.float32)
    assert jnp.isfinite(loss).all()
    np.testing.assert_allclose(loss, oracle(*arrays, TEMPERATURE), atol=0.15)


@pytest.mark.parametrize("temperature", [0.0, -0.1])
def test_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature} must be positive"):
        info_nce(*embeddings(), temperature=temperature)
