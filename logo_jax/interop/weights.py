"""Weights of ResNets in torchvision's names and layout, and in ours."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

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
