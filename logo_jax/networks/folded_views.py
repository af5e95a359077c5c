"""Modules that do not know of the view axis, as backbones."""

import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epy

with epy.lazy_imports():  # few backbones are NNX modules
    from flax.nnx import bridge


class FoldedViews(nn.Module):
    """Encodes all views of a stack [v, b, h, w, c] as one batch [v * b, h, w, c].

    The variables are those of the module. `train` is passed to a module whose
    `__call__` takes it; an NNX module is also put into training or evaluation mode.

    Attributes:
        module: Linen module from images [b, h, w, c] to features [b, f], or an NNX
            module that `flax.nnx.bridge.ToLinen` wraps.
    """

    module: nn.Module

    def setup(self):
        """Lets the module have its variables without a level of its own."""
        nn.share_scope(self, self.module)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns features [..., f], float32, of images [..., h, w, c]."""
        folded = images.reshape(-1, *images.shape[-3:])
        if isinstance(self.module, bridge.ToLinen):
            features = self.module(folded, nnx_method=_call_nnx, train=train)
        else:
            features = _call(self.module, folded, train)
        unfolded = (*images.shape[:-3], *features.shape[1:])
        return features.reshape(unfolded).astype(jnp.float32)


def _call_nnx(module: Any, images: jax.Array, *, train: bool) -> jax.Array:
    """Applies an NNX module in training or evaluation mode."""
    if train:
        module.train()
    else:
        module.eval()
    return _call(module, images, train)


def _call(module: Any, images: jax.Array, train: bool) -> jax.Array:
    if "train" in inspect.signature(type(module).__call__).parameters:
        return module(images, train=train)
    return module(images)
