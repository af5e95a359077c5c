"""Setup of tests: strict JAX, four simulated devices, a persistent compile cache."""

import gc
import os
import pathlib

from tests.xla_flags import DEVICES

# In the environment, so that the processes that tests start compile fast too.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES.format(4)}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # compile time dominates
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # lowering is faster
os.environ["JAX_COMPILATION_CACHE_DIR"] = (
    f"{pathlib.Path(__file__).parents[1]}/.jax_cache"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax
import pytest

gc.set_threshold(20_000, 20, 20)  # JAX's traces are many objects, most of them live
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(name="git_alone")
def fixture_git_alone(monkeypatch):
    """Git without the user's settings, and without those of a hook that runs tests."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)


def pytest_report_header(config):
    """States which tests are not run."""
    if config.option.markexpr == "not slow":
        return "without the slow tests, which `make test-slow` runs"
    return None
