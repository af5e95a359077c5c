"""Files of named tensors: safetensors, and PyTorch files, which need torch."""

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".torch")
# Keys below which programs keep a state dict: MoCo, SimSiam and torchvision's training;
# VISSL; DeiT and MAE; DINO, whose teacher is evaluated.
_PLACES = (
    ("state_dict",),
    ("classy_state_dict", "base_model", "model", "trunk"),
    ("model",),
    ("teacher",),
)


def write_safetensors(
    tensors: Mapping[str, np.ndarray], file: Path, **facts: str
) -> None:
    """Writes a safetensors file with the metadata that PyTorch libraries expect.

    Args:
        tensors: tensors by name.
        file: path of the file.
        **facts: more metadata.
    """
    # safetensors' save_file creates files that only their owner may read.
    file.write_bytes(save(dict(tensors), metadata={"format": "pt", **facts}))


def metadata(file: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file; none of a PyTorch file."""
    if file.name.endswith(TORCH_SUFFIXES):
        return {}
    with safe_open(file, "numpy") as opened:
        return opened.metadata() or {}


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file, or of the state dict in it (`_PLACES`).

    Floating-point tensors become float32. Only tensors and plain containers are
    unpickled; a file with other objects is an error.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if torch is not installed, or the file has no state dict.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; give a file of weights")
    torch = _torch(file)
    unpickling = torch.serialization.pickle.UnpicklingError
    try:
        # DINO and MAE store their arguments with the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (unpickling, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{file} is damaged, or contains objects other than tensors and plain "
            "containers; save only its state dict"
        ) from error
    state = state_dict(loaded)
    if not isinstance(state, dict):
        raise ValueError(f"{file} contains no state dict; save one")
    return {name: _array(name, tensor, file) for name, tensor in state.items()}


def state_dict(loaded: Any) -> Any:
    """Returns the state dict in the content of a file: below known keys, or all."""
    for place in _PLACES:
        found = loaded
        for key in place:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    return loaded


def _array(name: Any, tensor: Any, file: Path) -> np.ndarray:
    if not hasattr(tensor, "detach"):
        raise ValueError(
            f"{file}: {name} must be a tensor, got {type(tensor).__name__}; save only "
            "the state dict"
        )
    tensor = tensor.detach()
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()


def write_torch(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Writes a PyTorch file with a plain state dict.

    Raises:
        ValueError: if torch is not installed.
    """
    torch = _torch(file)
    torch.save({name: torch.tensor(x) for name, x in tensors.items()}, file)


def _torch(file: Path) -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{file.name} needs torch: pip install 'logo_jax[torch]', or use "
            "safetensors"
        ) from error
