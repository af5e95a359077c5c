"""A backbone with its weights, independent of the file format."""

from typing import Any, NamedTuple

import flax.linen as nn
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

    @property
    def name(self) -> str:
        """Name of the module's class, without the wrapper that folds views."""
        return type(getattr(self.module, "module", self.module)).__name__

    def features(self, images: Float[Array, "b h w 3"]) -> Float[np.ndarray, "b f"]:
        """Computes features of normalized images in evaluation mode, in float32."""
        module = in_float32(self.module)
        with jax.default_matmul_precision("highest"):
            encode = jax.jit(lambda v, x: module.apply(v, x, train=False))
            return np.asarray(encode(self.variables, images))


class Classifier(NamedTuple):
    """A linear classifier of a backbone's features.

    Attributes:
        kernel: weights, [f, c].
        bias: biases, [c].
        names: names of the classes, in the order of the scores.
    """

    kernel: np.ndarray
    bias: np.ndarray
    names: tuple[str, ...]

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """Returns weight and bias of PyTorch's linear layer with this name."""
        weight = np.ascontiguousarray(self.kernel.T, np.float32)
        return {
            f"{name}.weight": weight,
            f"{name}.bias": np.asarray(self.bias, np.float32),
        }


def in_float32(module: Any) -> Any:
    """Returns a Linen module that computes in float32, if its dtype is an attribute."""
    inner = getattr(module, "module", None)
    if isinstance(inner, nn.Module):  # of the wrapper that folds views
        return module.clone(module=in_float32(inner))
    return module.clone(dtype=np.float32) if hasattr(module, "dtype") else module
