"""Files of named tensors: safetensors, and PyTorch's, which needs torch and a word."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

TORCH_SUFFIXES = (".pth", ".pt", ".tar")


def write_safetensors(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Writes a file as PyTorch's libraries expect it."""
    # safetensors' own writing makes files that nobody else may read
    file.write_bytes(save(dict(tensors), metadata={"format": "pt"}))


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """The float tensors of a PyTorch file, or of the `state_dict` in it.

    Only tensors and plain containers are unpickled; a file with anything else is not.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: without torch, or where it holds no state dict.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; give one of weights")
    torch = _torch(file)
    unpickling = torch.serialization.pickle.UnpicklingError
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (unpickling, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{file} is damaged, or holds more than tensors and plain containers; save "
            "its state dict alone"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{file} holds no state dict; save one")
    return {name: _array(name, tensor, file) for name, tensor in state.items()}


def _array(name: Any, tensor: Any, file: Path) -> np.ndarray:
    if not hasattr(tensor, "detach"):
        raise ValueError(
            f"{file}: {name} is {type(tensor).__name__}, must be a tensor; save the "
            "state dict alone"
        )
    tensor = tensor.detach()
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()


def write_torch(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Writes a plain state dict.

    Raises:
        ValueError: without torch.
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
