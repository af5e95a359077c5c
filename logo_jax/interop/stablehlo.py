"""An encoder as compiled code: images to features, with nothing else to install.

What is written is read by `jax.export.deserialize`, within the time for which JAX keeps
its exports readable; the StableHLO in it by whatever runs that.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import UInt8

from logo_jax.augment.color import AugmentSpec
from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.interop.backbone import Backbone

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(backbone: Backbone, augment: AugmentSpec, side: int) -> bytes:
    """The function from uint8 images [b, side, side, 3], any b, to features [b, f].

    Weights and normalisation are in it; it computes in float32.

    Args:
        backbone: to export.
        augment: how images are normalised.
        side: of the images, in pixels.
    """
    module = backbone.module.clone(dtype=jnp.float32)
    variables = jax.tree.map(jnp.asarray, backbone.variables)

    def encode(images: jax.Array) -> Any:
        return module.apply(variables, prepare_eval(images, augment), train=False)

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)
    with jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(encode), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def features(serialized: bytes, images: UInt8[np.ndarray, "b s s 3"]) -> np.ndarray:
    """What the exported function gives."""
    return np.asarray(export.deserialize(bytearray(serialized)).call(images))
