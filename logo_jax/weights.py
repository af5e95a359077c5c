"""Weights that other libraries trained, in our layout: torchvision's ResNets."""

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
    if not Path(path).is_file():
        raise FileNotFoundError(f"--weights={path} is not a file; give a safetensors")
    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(
            f"--weights={path} must be a safetensors file of float16 or float32 "
            f"({error}); convert it"
        ) from error
    return _from_torchvision(tensors, like, path)


def _from_torchvision(
    tensors: Mapping[str, np.ndarray], like: Any, origin: str | Path
) -> Any:
    left = {name for name in tensors if not _IGNORED.fullmatch(name)}

    def leaf(path: Any, shape: Any) -> np.ndarray:
        name = torchvision_name("/".join(entry.key for entry in path[1:]))
        if name not in tensors:
            raise ValueError(
                f"{origin} has no {name}: it is another network than the config's; "
                "give the config with the encoder that made it"
            )
        left.discard(name)
        value = _our_layout(tensors[name])
        if value.shape != shape.shape:
            raise ValueError(
                f"{origin}: {name} has shape {tensors[name].shape}, which would be "
                f"{value.shape} here, where the config's encoder has {shape.shape}; "
                "give its own config"
            )
        return value.astype(np.float32)

    filled = jax.tree.map_with_path(leaf, like)
    if left:
        raise ValueError(
            f"{origin} has {min(left)}, which the config's encoder has not; give the "
            "config with the encoder that made it"
        )
    return filled


def _our_layout(tensor: np.ndarray) -> np.ndarray:
    """[out, in, h, w] as [h, w, in, out]; anything else as it is."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
