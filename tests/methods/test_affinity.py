"""Compares pairs, noise and normalization of the learned affinity with NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from logo_jax.losses import jensen_shannon
from logo_jax.methods import CosineAffinity
from logo_jax.methods.affinity import CHOICES
from logo_jax.methods.base import TrainState
from logo_jax.networks import heads
from logo_jax.networks.batch_norm import LayerNorm
from logo_jax.parallel.mesh import AXIS, make_mesh
from tests.contracts import cases

PAIRS, BATCH, DIM = 1, 8, 4
REPLICATED = P()


def state_of(affinity):
    empty = TrainState(
        step=jnp.int32(0), params={}, batch_stats={}, opt_states={}, memory={}
    )
    return jax.jit(affinity.init, static_argnums=2)(empty, jax.random.key(1), DIM)


def embeddings(seed=0):
    return jax.random.normal(jax.random.key(seed), (2 * PAIRS, BATCH, DIM))


def compiled(function, num_args, num_devices=1, out_specs=REPLICATED):
    """Compiles a function of each device's rows of the last argument [v, b, d]."""
    mesh = make_mesh(jax.devices()[:num_devices])
    specs = (P(),) * (num_args - 1) + (P(None, AXIS),)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_specs)
    return jax.jit(mapped)


def on_devices(function, *args, **placed):
    return compiled(function, len(args), **placed)(*args)


def partners(affinity, keys, num_devices):
    """Yields, for each first crop, the image of its partner in the negatives, [b]."""
    z = jnp.arange(BATCH, dtype=jnp.float32)[None, :, None]

    def negatives(key, z):
        return affinity._negatives(z, z, key)

    out_specs = P(None, AXIS)
    find = compiled(negatives, 2, num_devices=num_devices, out_specs=out_specs)
    for key in keys:
        pairs = find(key, z)
        np.testing.assert_array_equal(pairs[0, :, 0], np.arange(BATCH))
        np.testing.assert_array_equal(pairs[1], pairs[0, :, ::-1])
        yield np.asarray(pairs[0, :, 1]).astype(int)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_flipped_negatives_reverse_the_global_batch(num_devices):
    (found,) = partners(
        cases.learned(cases.PER_DEVICE), [jax.random.key(0)], num_devices
    )
    np.testing.assert_array_equal(found, np.arange(BATCH)[::-1])


def test_rolled_negatives_are_one_random_shift_that_is_never_zero():
    affinity = cases.learned(cases.PER_DEVICE, negatives="roll")
    shifts = set()
    keys = jax.random.split(jax.random.key(0), 12)
    for one, four in zip(*(partners(affinity, keys, n) for n in (1, 4)), strict=True):
        np.testing.assert_array_equal(one, four)
        moved = (np.arange(BATCH) - one) % BATCH
        assert len(set(moved)) == 1
        shifts.add(int(moved[0]))
    assert 0 not in shifts
    assert len(shifts) > 3


def learn(affinity, key=0, num_devices=1):
    def both(state, key, z):
        state, metrics = affinity.learn(state, z, key)
        return state.params, metrics

    key = jax.random.key(key)
    args = (state_of(affinity), key, embeddings())
    return jax.device_get(on_devices(both, *args, num_devices=num_devices))


def test_noise_on_both_changes_negatives_and_on_none_changes_nothing():
    scores = {}
    for noise_on in ("none", "positives", "both"):
        affinity = cases.learned(cases.PER_DEVICE, noise_on=noise_on, noise=2.0)
        _, metrics = learn(affinity)
        scores[noise_on] = [metrics["score_same"], metrics["score_different"]]
    same, different = zip(*scores.values(), strict=True)
    assert abs(same[0] - same[1]) > 1e-4
    assert same[1] == same[2]
    assert different[0] == different[1]
    assert abs(different[1] - different[2]) > 1e-4


def test_noise_has_the_norm_it_is_given():
    affinity = cases.learned(cases.PER_DEVICE, noise=0.3)
    draw = lambda z: affinity.draw_noise(jax.random.key(0), (2, *z.shape))  # noqa: E731
    noise = on_devices(draw, jnp.zeros((1, 256, 128)), out_specs=P(None, None, AXIS))
    norms = np.linalg.norm(noise, axis=-1)
    np.testing.assert_allclose(norms.mean(), 0.3, rtol=0.02)


def test_a_random_affinity_never_learns_but_repels():
    affinity = cases.learned(cases.PER_DEVICE, trained=False)
    state = state_of(affinity)
    assert state.opt_states == {}
    params, metrics = learn(affinity)
    assert metrics == {}
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.params))
    gradient = on_devices(
        lambda state, z: jax.grad(
            lambda z: affinity.repulsion(state, z, jax.random.key(0))[0]
        )(z),
        state,
        embeddings(),
        out_specs=P(None, AXIS),
    )
    assert np.abs(gradient).max() > 1e-6


def repel(affinity, z=None):
    z = embeddings() if z is None else z
    state = state_of(affinity)

    def both(state, z):
        loss, (after, _) = affinity.repulsion(state, z, jax.random.key(0))
        return jax.lax.pmean((loss, after.batch_stats), AXIS)

    loss, stats = on_devices(both, state, z)
    return float(loss), jax.device_get((state.batch_stats, stats))


def test_repelling_both_orders_does_not_depend_on_the_order():
    swapped = embeddings()[::-1]
    both = [
        repel(cases.learned(cases.PER_DEVICE, both_orders=True), z)[0]
        for z in (None, swapped)
    ]
    one = [repel(cases.learned(cases.PER_DEVICE), z)[0] for z in (None, swapped)]
    assert both[0] == pytest.approx(both[1], abs=1e-6)
    assert abs(one[0] - one[1]) > 1e-4


def test_eval_scores_repelled_pairs_with_unchanged_running_statistics():
    _, (before, after) = repel(cases.learned(cases.PER_DEVICE, regressor_norm="eval"))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    _, (before, after) = repel(cases.learned(cases.PER_DEVICE))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 1e-6, before, after)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_joint_norm_normalizes_repelled_pairs_with_negatives():
    losses = {}
    for regressor_norm in ("separate", "joint"):
        affinity = cases.learned(cases.PER_DEVICE, regressor_norm=regressor_norm)
        losses[regressor_norm] = repel(affinity)[0]
    assert abs(losses["joint"] - losses["separate"]) > 1e-4
    affinity = cases.learned(cases.PER_DEVICE, regressor_norm="joint")
    state, (first, second) = state_of(affinity), np.asarray(unit(embeddings()))
    other = second[::-1]
    kinds = ((first, second), (first, other), (other, first))
    pairs = np.concatenate([np.concatenate(kind, axis=-1) for kind in kinds])
    variables = {
        "params": state.params["regressor"],
        "batch_stats": state.batch_stats["regressor"],
    }
    scores, _ = affinity.regressor.apply(
        variables, jnp.asarray(pairs)[None], train=True, mutable=["batch_stats"]
    )
    expected = jax.nn.softplus(scores[0, :BATCH]).mean()
    np.testing.assert_allclose(losses["joint"], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [1, 2])
def test_joint_norm_makes_every_positive_depend_on_negatives(splits):
    regressor = heads.Regressor(8, 2, norm=cases.Norms(None, splits).of_all)
    affinity = cases.learned(
        cases.PER_DEVICE, regressor_norm="joint", regressor=regressor
    )
    state = state_of(affinity)
    pairs = jax.random.normal(jax.random.key(3), (4, BATCH, 2 * DIM))

    def scores(pairs):
        return affinity._score(state, state.params["regressor"], pairs)[0]

    moved = np.abs(scores(pairs.at[2:].add(1.0)) - scores(pairs))
    assert moved[:2].min() > 1e-5


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


def test_raw_inputs_keep_their_length():
    long = 10 * embeddings()
    normalized = [repel(cases.learned(cases.PER_DEVICE), z)[0] for z in (None, long)]
    assert normalized[0] == pytest.approx(normalized[1], abs=1e-5)
    regressor = heads.Regressor(8, 1, norm=None)
    raw = [
        repel(cases.learned(cases.PER_DEVICE, normalize=False, regressor=regressor), z)[
            0
        ]
        for z in (None, long)
    ]
    assert abs(raw[0] - raw[1]) > 1e-3


def test_a_regressor_with_layer_norm_keeps_no_statistics():
    affinity = cases.learned(
        cases.PER_DEVICE, regressor=heads.Regressor(8, 2, norm=LayerNorm)
    )
    state = state_of(affinity)
    assert state.batch_stats == {"regressor": {}}
    assert np.isfinite(repel(affinity)[0])


def test_cosine_affinity_is_the_mean_cosine_of_the_pairs():
    z = np.asarray(unit(embeddings()))
    loss, _ = repel(CosineAffinity())
    np.testing.assert_allclose(loss, (z[0] * z[1]).sum(-1).mean(), rtol=1e-5)


def test_the_affinity_gap_is_of_one_image_minus_two_images():
    """Crop 1 is a copy of crop 0; the other images have orthogonal embeddings."""
    z = jnp.tile(jnp.eye(BATCH)[None], (2, 1, 1))

    def gap(state, z):
        _, metrics = CosineAffinity().learn(state, z, jax.random.key(0))
        return metrics["health/affinity_gap"][None]

    found = on_devices(gap, state_of(CosineAffinity()), z, out_specs=P(AXIS))
    np.testing.assert_allclose(found, [1])


@pytest.mark.parametrize("negatives", CHOICES["negatives"])
def test_learning_is_the_same_on_one_device_and_on_four(negatives):
    affinity = cases.learned(negatives=negatives, loss=squared)
    one, four = (learn(affinity, num_devices=n) for n in (1, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, four)


def squared(positive, negative):
    """Returns a loss that differs from the mean of its values on the devices."""
    return jensen_shannon(positive, negative) ** 2


@pytest.mark.parametrize("field", ["noise_on", "negatives", "regressor_norm"])
def test_an_unknown_option_is_refused_by_name(field):
    with pytest.raises(ValueError, match=f"{field}='sideways' must be one of"):
        dataclasses.replace(cases.learned(cases.PER_DEVICE), **{field: "sideways"})
