"""Random keys of one kind, so that numbers do not depend on JAX's settings."""

import jax


def make_key(seed: int) -> jax.Array:
    """Returns the random key of a seed, a threefry key whatever JAX's default is."""
    return jax.random.key(seed, impl="threefry2x32")
