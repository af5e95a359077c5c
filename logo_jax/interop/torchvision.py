"""ResNets in torchvision's names and layout, and in ours."""

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
    """Torchvision's name of a leaf of our ResNets.

    >>> torchvision_name("layer2_0/downsample_bn/mean")
    'layer2.0.downsample.1.running_mean'
    """
    *layers, leaf = path.split("/")
    renamed = [re.sub(r"^(layer\d)_", r"\1.", _LAYERS.get(x, x)) for x in layers]
    return ".".join([*renamed, _LEAVES[leaf]])


def read_backbone(path: str | Path, like: Any) -> Any:
    """A backbone's variables from a safetensors file with torchvision's names.

    Its classifier, `fc`, is left out.

    Args:
        path: of the file.
        like: "params" and "batch_stats" of the backbone, as arrays or shapes; what is
            returned has their structure.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no safetensors file, or holds another network.

    Source: torchvision.models.resnet, for the names.
    """
    return from_torchvision(read_safetensors(path), like, path)


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is another, or not of float16 or float32.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; give a safetensors")
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a safetensors file of float16 or float32 "
            f"({error}); convert it"
        ) from error


def to_torchvision(variables: Any) -> dict[str, np.ndarray]:
    """A ResNet's variables by torchvision's names, in its layout, float32.

    Without a classifier; `num_batches_tracked`, which nothing here counts, is 0.

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
    """A backbone's variables from tensors with torchvision's names.

    Args:
        tensors: by name; `fc` and `num_batches_tracked` are left out.
        like: as in `read_backbone`.
        origin: what the tensors were read from, to name in errors.

    Raises:
        ValueError: for the first tensor that is missing, misshapen or not expected.
    """
    left = {name for name in tensors if not _IGNORED.fullmatch(name)}

    def leaf(path: Any, shape: Any) -> np.ndarray:
        name = _name(path)
        if name not in tensors:
            raise ValueError(
                f"{origin} has no {name}, which the encoder has; give the whole file "
                "of one ResNet, to evaluate with its own config"
            )
        left.discard(name)
        value = _our_layout(tensors[name])
        if value.shape != shape.shape:
            raise ValueError(
                f"{origin}: {name} has shape {tensors[name].shape}, which would be "
                f"{value.shape} here, where the encoder has {shape.shape}; give the "
                "file of one ResNet, to evaluate with its own config"
            )
        return value.astype(np.float32)

    filled = jax.tree.map_with_path(leaf, like)
    if left:
        raise ValueError(
            f"{origin} has {min(left)}, which the encoder has not; give the file of "
            "one ResNet, to evaluate with its own config"
        )
    return filled


def _name(path: Any) -> str:
    """Torchvision's name of a leaf below "params" or "batch_stats"."""
    return torchvision_name("/".join(entry.key for entry in path[1:]))


def _our_layout(tensor: np.ndarray) -> np.ndarray:
    """[out, in, h, w] as [h, w, in, out]; anything else as it is."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor


def _their_layout(tensor: np.ndarray) -> np.ndarray:
    """[h, w, in, out] as [out, in, h, w]; anything else as it is."""
    return tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor
