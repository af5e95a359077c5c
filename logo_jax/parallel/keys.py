"""Random keys of one kind, whatever the default of JAX is.

`mesh.all_devices` refuses the setting of JAX that would change their numbers.
"""

import jax


def make_key(seed: int) -> jax.Array:
    """Returns the random key of a seed, a threefry key whatever JAX's default is."""
    return jax.random.key(seed, impl="threefry2x32")
