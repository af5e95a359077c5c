import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.losses import l2_normalize, sinkhorn, swapped_prediction
from logo_jax.methods.base import ENCODER, PROTOTYPES
from logo_jax.methods.multi_crop import encode, split_views
from tests.contracts import cases

BATCH = cases.BATCH
QUEUE = 2 * BATCH


def kernel(state):
    return np.asarray(state.params[PROTOTYPES]["kernel"])


def stretched(state, factor=3.0):
    """Returns the state with longer prototypes, as after a gradient step."""
    prototypes = {PROTOTYPES: {"kernel": jnp.asarray(factor * kernel(state))}}
    return state.replace(params=state.params | prototypes)


def test_prototypes_keep_their_directions_and_get_unit_length():
    method = cases.swav()
    state = method.init(jax.random.key(0), cases.batch())
    np.testing.assert_allclose(np.linalg.norm(kernel(state), axis=1), 1, rtol=1e-6)
    prepared = method.update_momentum_encoder(stretched(state))
    np.testing.assert_allclose(kernel(prepared), kernel(state), atol=1e-6)


@pytest.mark.slow
def test_frozen_prototypes_are_normalized_and_change_only_later():
    trainer = cases.Trainer(cases.swav(cases.PER_DEVICE, tx=cases.freezing(2)))
    state = trainer.init()
    start, encoder = kernel(state), jax.device_get(state.params[ENCODER])
    state, _ = trainer.run(stretched(state), 2)
    np.testing.assert_allclose(kernel(state), start, atol=1e-6)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), jax.device_get(state.params[ENCODER]), encoder
    )
    assert max(jax.tree.leaves(moved)) > 1e-5
    state, _ = trainer.run(state, 1, start=2)
    assert np.abs(kernel(state) - start).max() > 1e-4


def test_without_a_queue_nothing_is_remembered():
    state = cases.swav().init(jax.random.key(0), cases.batch())
    assert state.memory == {}


def unit_embeddings(method, state, batch):
    """Returns the unit embeddings of every view, [v, b, d]."""
    z = encode(method.encoder, state.variables(ENCODER), split_views(batch))
    return l2_normalize(z.embeddings)


def expected_loss(method, state, batch, queue=None):
    """Computes the loss with unit prototypes, one pair at a time."""
    z = unit_embeddings(method, state, batch)
    prototypes = jnp.asarray(state.params[PROTOTYPES]["kernel"])
    total = 0.0
    for s, t in zip(*np.nonzero(method.pair_weights), strict=True):
        images = z[t] if queue is None else jnp.concatenate([z[t], queue[t]])
        codes = sinkhorn(images @ prototypes.T, epsilon=0.05, iterations=3)
        code = jax.lax.stop_gradient(codes[:BATCH])
        scores = z[s] @ prototypes.T
        loss = swapped_prediction(code[None], scores[None], temperature=0.1)
        total += method.pair_weights[s, t] * loss.mean()
    return total


@pytest.fixture(scope="module")
def queued():
    """SwAV with a queue, a state with a queue of unit vectors, and `expected_loss`."""
    trainer = cases.Trainer(
        cases.swav(cases.PER_DEVICE, queue_size=QUEUE, queue_start=5)
    )
    state = jax.device_get(trainer.init())
    queue = jax.random.normal(jax.random.key(3), state.memory["queue"].shape)
    state = state.replace(memory={"queue": np.asarray(l2_normalize(queue))})
    return trainer, state, jax.jit(functools.partial(expected_loss, trainer.method))


def loss_after(trainer, state):
    return trainer.run(stretched(state), 1)[1]["loss"]


@pytest.mark.slow
def test_a_full_queue_is_used_for_codes_from_its_start_on(queued):
    trainer, state, expected_of = queued
    state = state.replace(step=np.int32(5))
    queue = state.memory["queue"]
    expected = expected_of(state, cases.batch(), queue)
    np.testing.assert_allclose(loss_after(trainer, state), expected, rtol=1e-4)
    alone = expected_of(state, cases.batch())
    assert abs(expected - alone) > 1e-3


def test_no_gradient_flows_through_the_codes(queued):
    trainer, state, expected_of = queued
    state = state.replace(step=np.int32(5))
    gradients = jax.grad(
        lambda params: expected_of(
            state.replace(params=params), cases.batch(), state.memory["queue"]
        )
    )(state.params)
    after, _ = trainer.run(state, 1)
    for (path, before), gradient, moved in zip(
        jax.tree.leaves_with_path(state.params),
        jax.tree.leaves(gradients),
        jax.tree.leaves(after.params),
        strict=True,
    ):
        expected = before - 0.05 * (gradient + 1e-3 * before)
        np.testing.assert_allclose(moved, expected, atol=2e-6, err_msg=str(path))


def test_a_queue_is_unused_before_its_start(queued):
    trainer, state, expected_of = queued
    expected = expected_of(state, cases.batch())
    loss = loss_after(trainer, state.replace(step=np.int32(4)))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_a_queue_is_unused_until_it_is_full(queued):
    trainer, state, expected_of = queued
    part = state.memory["queue"].copy()
    part[:, BATCH:] = 0
    state = state.replace(step=np.int32(5), memory={"queue": part})
    expected = expected_of(state, cases.batch())
    np.testing.assert_allclose(loss_after(trainer, state), expected, rtol=1e-4)


def test_the_queue_takes_each_targeted_views_embeddings_in_front(queued):
    trainer, state, _ = queued
    before = state.memory["queue"]
    embed = jax.jit(functools.partial(unit_embeddings, trainer.method))
    z = embed(state, cases.batch())
    queue = trainer.run(state, 1)[0].memory["queue"]
    np.testing.assert_allclose(queue[:, :BATCH], z[:2], atol=1e-5)
    np.testing.assert_array_equal(queue[:, BATCH:], before[:, :-BATCH])


def test_codes_of_equal_embeddings_are_uniform():
    trainer = cases.Trainer(cases.swav(cases.PER_DEVICE))
    state = trainer.init()
    head = state.params[ENCODER]["head"]
    constant = head | {
        "fc1": {"kernel": jnp.zeros((8, cases.DIM)), "bias": jnp.ones(cases.DIM)}
    }
    encoder = state.params[ENCODER] | {"head": constant}
    state = state.replace(params=state.params | {ENCODER: encoder})
    _, metrics = trainer.run(state, 1)
    np.testing.assert_allclose(metrics["code_entropy"], np.log(6), rtol=1e-5)


def test_a_queue_that_does_not_fit_is_refused_with_a_remedy():
    method = cases.swav(queue_size=20)
    with pytest.raises(ValueError, match="queue_size=20 .*multiple of the 8 .*use 16"):
        method.init(jax.random.key(0), cases.batch())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queue_size": -8}, "queue_size=-8 must be >= 0"),
        ({"queue_start": 5}, "queue_start=5 needs a queue"),
        ({"num_prototypes": 0}, "num_prototypes=0 must be positive; try 512"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive; try 0.1"),
        ({"epsilon": -1.0}, "epsilon=-1.0 must be positive; try 0.05"),
        ({"iterations": 0}, "iterations=0 must be positive; try 3"),
    ],
)
def test_a_field_out_of_range_is_refused_with_a_remedy(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(cases.swav(), **fields)
