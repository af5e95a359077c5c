import jax
import numpy as np
import optax
import pytest

from logo_jax.losses import negative_cosine
from logo_jax.methods import SimSiam
from logo_jax.methods.base import ENCODER, PREDICTOR, TARGET_ENCODER
from logo_jax.methods.multi_crop import encode, split_views
from tests.contracts import cases


def assert_close(a, b, tolerance=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


@pytest.mark.slow
def test_target_moves_after_each_step_by_that_steps_momentum():
    trainer = cases.one_device("byol")  # its momentum is a cosine from 0.5 in 8 steps
    state = trainer.init()
    expected = jax.device_get(state.memory[TARGET_ENCODER])
    assert_close(expected, jax.device_get(state.params[ENCODER]), tolerance=0)
    for i in range(4):
        if i:  # the target follows the encoder that the previous step left
            keep = 1 - 0.5 * (np.cos(np.pi * (i - 1) / 8) + 1) / 2
            encoder = jax.device_get(state.params[ENCODER])
            expected = jax.tree.map(
                lambda t, e, m=keep: m * t + (1 - m) * e, expected, encoder
            )
        state, _ = trainer.run(state, 1, start=i)
        assert_close(jax.device_get(state.memory[TARGET_ENCODER]), expected)


@pytest.mark.slow
def test_byol_whose_target_keeps_nothing_is_simsiam():
    byol = cases.byol(cases.PER_DEVICE, momentum=optax.constant_schedule(0.0))
    simsiam = SimSiam(byol.encoder, byol.predictor, byol.tx, byol.pair_weights)
    ours, theirs = cases.Trainer(byol), cases.Trainer(simsiam)
    (a, a_metrics), (b, b_metrics) = (t.run(t.init(), 3) for t in (ours, theirs))
    assert_close(a.params, b.params)
    assert_close(a_metrics, b_metrics)


@pytest.mark.slow
def test_encoder_sees_the_views_that_predict_and_target_only_their_targets():
    method = cases.byol(cases.PER_DEVICE, pairing="one_way")
    trainer = cases.Trainer(method)
    start = jax.device_get(trainer.init())
    start = start.replace(  # a target that differs from the encoder
        memory={TARGET_ENCODER: jax.tree.map(lambda x: x[::-1], start.params[ENCODER])},
        step=np.int32(1),
    )
    after, metrics = trainer.run(start, 1)
    target = jax.device_get(after.memory[TARGET_ENCODER])
    first, second = split_views(cases.batch())[:2]
    encoder, predictor = trainer.method.encoder, trainer.method.predictor
    z, stats, _ = encode(encoder, start.variables(ENCODER), [first])
    p, _, _ = encode(predictor, start.variables(PREDICTOR), [*z])
    moved = start.variables(TARGET_ENCODER) | {"params": target}
    t, target_stats, _ = encode(encoder, moved, [second])
    assert_close(metrics["loss"], negative_cosine(p, t).mean())
    assert_close(after.batch_stats[ENCODER], stats)
    assert_close(after.batch_stats[TARGET_ENCODER], target_stats)
