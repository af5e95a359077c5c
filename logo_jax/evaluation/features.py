"""Features of a data set by a frozen encoder, every example exactly once."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

Encode = Callable[[np.ndarray], dict[str, jax.Array]]


class Features(NamedTuple):
    """A data set as one encoder sees it.

    Attributes:
        features: [n, d] float32.
        labels: [n] int32.
    """

    features: np.ndarray
    labels: np.ndarray


def extract(
    encode: Encode, images: np.ndarray, labels: np.ndarray, *, batch_size: int
) -> dict[str, Features]:
    """Features by layer name.

    Args:
        encode: from uint8 images [batch_size, h, w, c] to features by layer; called
            with one shape only: the last batch is padded and its padding dropped.
        images: uint8 [n, h, w, c].
        labels: [n].
        batch_size: images a call; a multiple of the number of devices.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padding = [(0, batch_size - len(batch))] + [(0, 0)] * (images.ndim - 1)
        for layer, features in encode(np.pad(batch, padding)).items():
            parts.setdefault(layer, []).append(np.asarray(features)[: len(batch)])
    return {
        layer: Features(np.concatenate(values), labels)
        for layer, values in parts.items()
    }
