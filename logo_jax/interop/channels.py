"""Weights of networks of three channels in networks of another number of channels."""

from typing import Any

import jax
import numpy as np

from logo_jax.networks.vit import PATCHES

NOTE = "each channel with a share of the sum of the weights of 3 channels"


def spread(kernel: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Gives each of `count` channels the sum of a kernel's channels, divided by it.

    So an image of equal channels has the same response as one of 3 equal channels.

    Args:
        kernel: weights of a convolution.
        count: number of channels.
        axis: the axis of the channels.

    >>> spread(np.array([[1.0, 2.0, 6.0]]), 2, axis=1)
    array([[4.5, 4.5]])
    """
    return np.repeat(kernel.sum(axis, keepdims=True) / count, count, axis)


def for_channels(path: Any, weights: np.ndarray, shape: Any) -> np.ndarray:
    """Changes the first layer's weights of 3 channels to another number of channels.

    Weights of other layers, or that do not fit in other ways, are not changed.

    Args:
        path: path of the weights in the tree of variables.
        weights: kernel of a convolution, or of the patches of a vision transformer.
        shape: shape of the kernel in the network that gets it.
    """
    if weights.ndim == 4 and weights.shape[2] == 3 and len(shape) == 4:
        wanted, kernel = (*weights.shape[:2], shape[2], weights.shape[3]), weights
    elif weights.ndim == 2 and PATCHES in jax.tree_util.keystr(path):
        kernel = weights.reshape(-1, 3, weights.shape[1])[None]
        wanted = (shape[0], weights.shape[1])
    else:
        return weights
    if wanted != tuple(shape) or weights.shape == wanted:
        return weights
    count = shape[2] if len(shape) == 4 else 3 * shape[0] // weights.shape[0]
    return spread(kernel, count, axis=2).reshape(wanted)
