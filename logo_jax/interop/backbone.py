"""A backbone with its weights, independent of the file format."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float


class Backbone(NamedTuple):
    """A network without its head, and its weights.

    Attributes:
        module: Flax module, called with images and `train`.
        variables: variables of the module: "params" and "batch_stats".
        prefix: prefix that the names of the tensors have in the backbone's file.
    """

    module: Any
    variables: Any
    prefix: str = ""

    def features(self, images: Float[Array, "b h w 3"]) -> Float[np.ndarray, "b f"]:
        """Computes features of normalized images in evaluation mode, in float32."""
        module = self.module.clone(dtype=np.float32)
        with jax.default_matmul_precision("highest"):
            encode = jax.jit(lambda v, x: module.apply(v, x, train=False))
            return np.asarray(encode(self.variables, images))
