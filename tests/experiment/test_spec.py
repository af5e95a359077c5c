"""What is traced and compiled before the first step."""

import jax
import numpy as np

from logo_jax.configs import load
from logo_jax.experiment import make_experiment, make_spec
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.parallel.mesh import make_mesh
from tests.commands.test_main import TINY, fixture_arrays

__all__ = ["fixture_arrays"]

CONFIG = "cifar10_simsiam:baseline"
FIELDS = {k: x for k, x in TINY.items() if k != "crops.local_crops"}
COMPILED = "/jax/core/compile/backend_compile_duration"


def test_the_keys_of_a_run_are_one_program():
    config = load(CONFIG, FIELDS | {"seed": 20261129, "data.path": "unused"})
    spec = make_spec(config.to_dict(), num_devices=1)
    compiled = []

    def count(event, duration, **_):
        if event == COMPILED:
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        keys = spec.keys("crops", "steps")
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert len(compiled) == 1
    expected = jax.random.split(jax.random.key(20261129, impl="threefry2x32"), 3)
    np.testing.assert_array_equal(*map(jax.random.key_data, (keys, expected[1:])))


def test_the_initialization_is_traced_once(arrays, monkeypatch):
    traced = []
    init = ExperimentSpec.init
    monkeypatch.setattr(
        ExperimentSpec, "init", lambda *given: traced.append(1) or init(*given)
    )
    config = load(CONFIG, FIELDS | {"data.path": str(arrays)}).to_dict()
    made = make_experiment(config, make_mesh(jax.devices()[:1]))
    state = made.init()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), made.spec.shapes
    )
    assert like == shapes
    assert len(traced) == 1
