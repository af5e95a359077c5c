"""Conversion of ResNets between torchvision's parameter names and layout and ours."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

from logo_jax.interop.backbone import Backbone
from logo_jax.interop.channels import for_channels
from logo_jax.networks.resnet import BasicBlock, Bottleneck, ResNet

Tensors = Mapping[str, np.ndarray]

STEM = "conv1.weight"
STEMS = {7: "imagenet", 3: "cifar"}  # side of the first convolution's kernel -> stem
STAGES = (1, 2, 3, 4)


def tensors_of(backbone: Backbone) -> dict[str, np.ndarray]:
    """Returns the backbone's torchvision state dict, without the classifier `fc`.

    Raises:
        ValueError: if the backbone is not a ResNet.
    """
    if not isinstance(backbone.module, ResNet):
        raise ValueError(
            f"{backbone.name} is not a ResNet, so torchvision's ResNets have no names "
            "for it; use --to=stablehlo, or --to=timm for a vision transformer"
        )
    return to_torchvision(backbone.variables)


def backbone_of(tensors: Tensors, origin: str | Path) -> Backbone:
    """Builds the ResNet that a torchvision state dict belongs to.

    Args:
        tensors: state dict; `fc` is ignored.
        origin: file of the tensors, for error messages.

    Raises:
        ValueError: if the tensors are not those of a ResNet of this library; the
            message names a tensor.
    """
    module = architecture(tensors, origin)
    image = jnp.zeros((1, 32, 32, tensors[STEM].shape[1]))
    like = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
    return Backbone(module, from_torchvision(tensors, like, origin))


def architecture(tensors: Tensors, origin: str | Path) -> ResNet:
    """Infers the ResNet from the tensor names and the first kernel's shape.

    Raises:
        ValueError: if no ResNet of this library fits.
    """
    needed = [STEM, *(f"layer{i}.0.conv1.weight" for i in STAGES)]
    for name in needed:
        if name not in tensors:
            raise ValueError(f"{origin} has no {name}, so it is not a ResNet")
    shape = tensors[STEM].shape
    if len(shape) != 4 or shape[-1] not in STEMS:
        raise ValueError(
            f"{origin}: {STEM} must have shape (width, 3, 7, 7) or, with the CIFAR "
            f"stem, (width, 3, 3, 3), got {shape}"
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
    """Computes a ResNet's pooled features as torchvision does in evaluation mode.

    Args:
        tensors: valid torchvision state dict of a ResNet.
        images: normalized images.

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
    """Basic block (stride in its first convolution) or bottleneck (in its second)."""
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


_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_LAYERS = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
_IGNORED = re.compile(r"fc\.(weight|bias)|.*\.num_batches_tracked")


def torchvision_name(path: str) -> str:
    """Returns torchvision's name of a leaf of our ResNets.

    >>> torchvision_name("layer2_0/downsample_bn/mean")
    'layer2.0.downsample.1.running_mean'
    """
    *layers, leaf = path.split("/")
    renamed = [re.sub(r"^(layer\d)_", r"\1.", _LAYERS.get(x, x)) for x in layers]
    return ".".join([*renamed, _LEAVES[leaf]])


def read_backbone(path: str | Path, like: Any) -> Any:
    """Reads a backbone's variables from a safetensors file with torchvision's names.

    The classifier `fc` is ignored.

    Args:
        path: path of the safetensors file.
        like: "params" and "batch_stats" of the backbone, as arrays or shapes; the
            result has the same structure.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is not a safetensors file or is of another network.

    Source: torchvision.models.resnet, for the names.
    """
    return from_torchvision(read_safetensors(path), like, path)


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors file.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is not a safetensors file of float16 or float32.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; give a safetensors file")
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a safetensors file of float16 or float32 "
            f"({error}); convert it"
        ) from error


def to_torchvision(variables: Any) -> dict[str, np.ndarray]:
    """Converts a ResNet's variables to torchvision's names and layout, in float32.

    There is no classifier, and `num_batches_tracked` is 0, because this library does
    not count batches.

    Args:
        variables: "params" and "batch_stats" of the backbone.
    """
    tensors = {
        _name(path): np.ascontiguousarray(_their_layout(np.asarray(value, np.float32)))
        for path, value in jax.tree.leaves_with_path(variables)
    }
    norms = [x for x in tensors if x.endswith(".running_mean")]
    return tensors | {
        x.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for x in norms
    }


def from_torchvision(
    tensors: Mapping[str, np.ndarray], like: Any, origin: str | Path
) -> Any:
    """Converts tensors with torchvision's names to a backbone's variables.

    Args:
        tensors: tensors by name; `fc` and `num_batches_tracked` are ignored. Those of
            3 channels are changed to the number of channels of `like`.
        like: "params" and "batch_stats" of the backbone, as arrays or shapes.
        origin: file of the tensors, for error messages.

    Raises:
        ValueError: if a tensor is missing, has another shape or is unexpected; the
            message names the tensor.
    """
    left = {name for name in tensors if not _IGNORED.fullmatch(name)}

    def leaf(path: Any, shape: Any) -> np.ndarray:
        name = _name(path)
        if name not in tensors:
            raise ValueError(
                f"{origin} has no {name}, which the encoder needs; use a complete file "
                "and the config of the same ResNet"
            )
        left.discard(name)
        value = for_channels(path, _our_layout(tensors[name]), shape.shape)
        if value.shape != shape.shape:
            raise ValueError(
                f"{origin}: {name} has shape {tensors[name].shape}, in our layout "
                f"{value.shape}, but the encoder has {shape.shape}; use the file and "
                "the config of the same ResNet"
            )
        return value.astype(np.float32)

    filled = jax.tree.map_with_path(leaf, like)
    if left:
        raise ValueError(
            f"{origin} has {min(left)}, which the encoder does not have; use the file "
            "and the config of the same ResNet"
        )
    return filled


def _name(path: Any) -> str:
    """Returns torchvision's name of a leaf below "params" or "batch_stats"."""
    return torchvision_name("/".join(entry.key for entry in path[1:]))


def _our_layout(tensor: np.ndarray) -> np.ndarray:
    """Transposes [out, in, h, w] to [h, w, in, out]; other shapes are unchanged."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor


def _their_layout(tensor: np.ndarray) -> np.ndarray:
    """Transposes [h, w, in, out] to [out, in, h, w]; other shapes are unchanged."""
    return tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor
