"""A backbone with its weights, whatever it was read from."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float


class Backbone(NamedTuple):
    """A network without its head, and its weights.

    Attributes:
        module: a flax module, called with images and `train`.
        variables: "params" and "batch_stats" of it.
    """

    module: Any
    variables: Any

    def features(self, images: Float[Array, "b h w 3"]) -> Float[np.ndarray, "b f"]:
        """Features of normalised images in evaluation mode, in strict float32."""
        module = self.module.clone(dtype=np.float32)
        with jax.default_matmul_precision("highest"):
            encode = jax.jit(lambda v, x: module.apply(v, x, train=False))
            return np.asarray(encode(self.variables, images))
