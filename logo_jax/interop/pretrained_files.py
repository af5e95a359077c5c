"""Reads a ResNet out of what others have published: which tensors are the backbone's.

torchvision's files, MoCo's (v1 and v2) and SimSiam's checkpoints, any of them as
safetensors, and folders for transformers. Classifiers, projectors, predictors, key
encoders and queues are left out; any other tensor is refused by name.
"""

import re
from pathlib import Path

import numpy as np

from logo_jax.interop import huggingface, tensor_files
from logo_jax.interop.backbone import Backbone
from logo_jax.interop.torchvision import STEM, Tensors, backbone_of, read_safetensors

# what stands before the backbone's names, and what else such a file holds
PREFIXES = {
    "": r"",
    "module.": r"",  # DistributedDataParallel
    "module.encoder_q.": r"module\.(encoder_k\..*|queue|queue_ptr)",  # MoCo
    "module.encoder.": r"module\.predictor\..*",  # SimSiam
}
HEAD = re.compile(r"fc\..*")  # a classifier, or the projector in its place


def read(source: Path, *, unpickle: bool = False) -> Backbone:
    """The backbone in a file, or in a folder for transformers.

    Args:
        source: a safetensors file, a PyTorch file, or a folder.
        unpickle: whether a PyTorch file may be read.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it holds no ResNet, or must not be read; names the tensor.
    """
    return backbone_of(tensors(source, unpickle=unpickle), source)


def tensors(source: Path, *, unpickle: bool = False) -> dict[str, np.ndarray]:
    """The backbone's tensors by torchvision's names; arguments and errors as `read`."""
    if source.is_dir():
        return huggingface.read(source)
    if not source.name.endswith(tensor_files.TORCH_SUFFIXES):
        return of_backbone(read_safetensors(source), source)
    if not unpickle:
        raise ValueError(
            f"{source} is a pickle, of which tensors alone can be read: make a "
            "safetensors of it by python -m logo_jax.convert with --unpickle"
        )
    return of_backbone(tensor_files.read_torch(source), source)


def of_backbone(found: Tensors, origin: Path) -> dict[str, np.ndarray]:
    """The backbone's tensors by torchvision's names.

    Raises:
        ValueError: where there is no backbone, or a tensor of unknown use.
    """
    prefixes = [prefix for prefix in PREFIXES if prefix + STEM in found]
    if not prefixes:
        raise ValueError(
            f"{origin} has no {STEM}, not behind {', '.join(filter(None, PREFIXES))} "
            "either: it holds no ResNet; give one"
        )
    prefix = prefixes[0]
    chosen = {}
    for name, tensor in found.items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix):
            chosen[inner] = tensor
        elif not re.fullmatch(PREFIXES[prefix], name):
            raise ValueError(
                f"{origin} has {name}, which is neither of the backbone under {prefix} "
                "nor known beside it; give a file without it"
            )
    return {name: x for name, x in chosen.items() if not HEAD.fullmatch(name)}
