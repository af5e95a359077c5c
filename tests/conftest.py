"""Setup of tests: strict JAX, four simulated devices, a persistent compile cache."""

import os
import pathlib

from tests.xla_flags import DEVICES

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES.format(4)}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_disable_most_optimizations", True)  # compile time dominates
jax.config.update("jax_traceback_in_locations_limit", 0)  # lowering is faster
CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"

jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
