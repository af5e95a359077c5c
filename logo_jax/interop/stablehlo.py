"""Exporting an encoder as compiled code that maps images to features.

The exported bytes are read by `jax.export.deserialize`, without this library, for as
long as JAX guarantees compatibility of its exports. The StableHLO program in them can
be run by any StableHLO runtime.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from logo_jax.augment.color import AugmentSpec
from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.interop.backbone import Backbone, in_float32

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(
    backbone: Backbone, augment: AugmentSpec, side: int, dtype: str = "uint8"
) -> bytes:
    """Exports the function from stored images [b, side, side, c] to features [b, f].

    The batch size b is symbolic. The function includes the weights and the
    normalization of the images, and computes in float32.

    Args:
        backbone: backbone to export.
        augment: augmentation settings, used for the normalization of the images.
        side: side of the images in pixels.
        dtype: type of the values of stored images.
    """
    module = in_float32(backbone.module)
    variables = jax.tree.map(jnp.asarray, backbone.variables)

    def encode(images: jax.Array) -> Any:
        return module.apply(variables, prepare_eval(images, augment), train=False)

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, side, side, len(augment.mean)), dtype)
    with jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(encode), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def features(serialized: bytes, images: np.ndarray) -> np.ndarray:
    """Runs an exported function on images and returns the features [b, f]."""
    return np.asarray(export.deserialize(bytearray(serialized)).call(images))
