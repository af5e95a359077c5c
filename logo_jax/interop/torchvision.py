"""ResNets as torchvision's state dicts, and the features that PyTorch would give.

Our networks read what is written here as any others' file; `features` never sees our
layout or our modules, so that the two tell when they differ.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from logo_jax.interop.backbone import Backbone
from logo_jax.interop.weights import from_torchvision, to_torchvision
from logo_jax.networks.resnet import BasicBlock, Bottleneck, ResNet

Tensors = Mapping[str, np.ndarray]

STEM = "conv1.weight"
STEMS = {7: "imagenet", 3: "cifar"}  # by the side of the first kernels
STAGES = (1, 2, 3, 4)


def tensors_of(backbone: Backbone) -> dict[str, np.ndarray]:
    """A state dict without `fc`.

    Raises:
        ValueError: for another network than a ResNet.
    """
    if not isinstance(backbone.module, ResNet):
        raise ValueError(
            f"{type(backbone.module).__name__} is no ResNet, and has no names in "
            "torchvision; use --to=stablehlo"
        )
    return to_torchvision(backbone.variables)


def backbone_of(tensors: Tensors, origin: str | Path) -> Backbone:
    """The ResNet that a state dict is of.

    Args:
        tensors: `fc` is left out.
        origin: what they were read from, to name in errors.

    Raises:
        ValueError: where they are no ResNet of this library, naming a tensor.
    """
    module = architecture(tensors, origin)
    image = jnp.zeros((1, 32, 32, 3))
    like = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
    return Backbone(module, from_torchvision(tensors, like, origin))


def architecture(tensors: Tensors, origin: str | Path) -> ResNet:
    """The network that the names, and the shape of the first kernels, belong to.

    Raises:
        ValueError: where there is none.
    """
    needed = [STEM, *(f"layer{i}.0.conv1.weight" for i in STAGES)]
    for name in needed:
        if name not in tensors:
            raise ValueError(f"{origin} has no {name}: it holds no ResNet; give one")
    shape = tensors[STEM].shape
    if len(shape) != 4 or shape[-1] not in STEMS:
        raise ValueError(
            f"{origin}: {STEM} has shape {shape}, must be (width, 3, 7, 7) or, with "
            "the CIFAR stem, (width, 3, 3, 3); give a ResNet"
        )
    return ResNet(
        stage_sizes=tuple(_count_blocks(tensors, i) for i in STAGES),
        block=Bottleneck if "layer1.0.conv3.weight" in tensors else BasicBlock,
        width=shape[0],
        stem=STEMS[shape[-1]],
    )


def _count_blocks(tensors: Tensors, stage: int) -> int:
    count = 1
    while f"layer{stage}.{count}.conv1.weight" in tensors:
        count += 1
    return count


def features(
    tensors: Tensors, images: Float[Array, "b h w 3"]
) -> Float[np.ndarray, "b f"]:
    """What PyTorch computes from a state dict in evaluation mode, up to the pooling.

    Args:
        tensors: of a ResNet, valid.
        images: normalised.

    Source: torchvision.models.resnet: ResNet._forward_impl.
    """
    floats = {
        name: x.astype(np.float32) for name, x in tensors.items() if x.dtype.kind == "f"
    }
    with jax.default_matmul_precision("highest"):
        return np.asarray(_pooled(floats, images))


@jax.jit
def _pooled(tensors: Any, images: jax.Array) -> jax.Array:
    size = tensors[STEM].shape[-1]
    x = jnp.transpose(images, (0, 3, 1, 2))
    x = _conv(tensors, "conv1", x, 2 if size == 7 else 1)
    x = jax.nn.relu(_norm(tensors, "bn1", x))
    x = _max_pool(x) if size == 7 else x
    for stage in STAGES:
        for i in range(_count_blocks(tensors, stage)):
            stride = 2 if stage > 1 and i == 0 else 1
            x = _block(tensors, f"layer{stage}.{i}", x, stride)
    return x.mean((2, 3))


def _block(tensors: Any, name: str, x: jax.Array, stride: int) -> jax.Array:
    """Two convolutions, the first with the stride, or three, the second with it."""
    strides = (1, stride, 1) if f"{name}.conv3.weight" in tensors else (stride, 1)
    y = x
    for i, step in enumerate(strides, 1):
        y = _norm(tensors, f"{name}.bn{i}", _conv(tensors, f"{name}.conv{i}", y, step))
        y = jax.nn.relu(y) if i < len(strides) else y
    if f"{name}.downsample.0.weight" in tensors:
        x = _conv(tensors, f"{name}.downsample.0", x, stride)
        x = _norm(tensors, f"{name}.downsample.1", x)
    return jax.nn.relu(x + y)


def _conv(tensors: Any, name: str, x: jax.Array, stride: int) -> jax.Array:
    kernel = tensors[f"{name}.weight"]
    margin = kernel.shape[-1] // 2
    padding = [(margin, margin)] * 2
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding)


def _norm(tensors: Any, name: str, x: jax.Array) -> jax.Array:
    mean, var, weight, bias = (
        tensors[f"{name}.{part}"][None, :, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / jnp.sqrt(var + 1e-5) * weight + bias


def _max_pool(x: jax.Array) -> jax.Array:
    padding = [(0, 0), (0, 0), (1, 1), (1, 1)]
    window, strides = (1, 1, 3, 3), (1, 1, 2, 2)
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, strides, padding)
