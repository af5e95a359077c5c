"""Settings of JAX that the library does not support, and keys that do not need them."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from logo_jax.experiment import make_experiment
from logo_jax.parallel.keys import make_key
from logo_jax.parallel.mesh import all_devices, make_mesh
from tests.commands.test_main import fixture_arrays, tiny_config

__all__ = ["fixture_arrays"]


@pytest.mark.slow
def test_a_step_does_not_depend_on_jaxs_kind_of_random_keys(arrays):
    """With "rbg" keys have other shapes, and every number would be another one."""
    config = tiny_config("cifar10_simsiam", "baseline", arrays)

    def first_loss():
        experiment = make_experiment(config, make_mesh(jax.devices()[:1]))
        ((examples, epoch),) = experiment.loader.batches(0, 1)
        _, metrics = experiment.train_step(experiment.init(), examples, epoch)
        return np.asarray(metrics["loss"])

    expected = first_loss()
    with jax.default_prng_impl("rbg"):
        assert first_loss() == expected
        assert jax.random.key_data(make_key(3)).shape == (2,)
    np.testing.assert_array_equal(  # the keys of earlier runs
        jax.random.key_data(make_key(3)), jax.random.key_data(jax.random.key(3))
    )


def test_numbers_of_64_bits_are_refused():
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match="JAX_ENABLE_X64 must be off"),
    ):
        all_devices()


def test_a_setting_with_other_random_numbers_is_refused():
    with (
        jax.threefry_partitionable(False),
        pytest.raises(ValueError, match="JAX_THREEFRY_PARTITIONABLE must be on"),
    ):
        all_devices()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["main", "doctor"])
def test_a_platform_without_a_device_is_reported_in_one_line(command, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    line = [sys.executable, "-m", f"logo_jax.{command}", "--config=quickstart"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: JAX has no device for JAX_PLATFORMS=cuda (")
    assert done.stdout == ""
