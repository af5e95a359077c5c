"""Reads the ResNet backbones of published checkpoints.

Supported are torchvision's files and the checkpoints of MoCo (v1 and v2) and SimSiam,
each also as safetensors, and folders of Hugging Face transformers. Classifiers,
projectors, predictors, key encoders and queues are skipped; any other tensor is an
error that names it.
"""

import re
from pathlib import Path

import numpy as np

from logo_jax.interop import huggingface, tensor_files
from logo_jax.interop.backbone import Backbone
from logo_jax.interop.torchvision import STEM, Tensors, backbone_of, read_safetensors

# Prefix of the backbone's tensor names, and a pattern for the other tensors of a file.
PREFIXES = {
    "": r"",
    "module.": r"",  # DistributedDataParallel
    "module.encoder_q.": r"module\.(encoder_k\..*|queue|queue_ptr)",  # MoCo
    "module.encoder.": r"module\.predictor\..*",  # SimSiam
}
HEAD = re.compile(r"fc\..*")  # a classifier, or the projector that replaces it


def read(source: Path, *, unpickle: bool = False) -> Backbone:
    """Reads the backbone of a file or of a transformers folder.

    Args:
        source: a safetensors file, a PyTorch file, or a transformers folder.
        unpickle: whether PyTorch files, which are pickles, may be read.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file does not contain a supported ResNet (the message names
            the tensor), or is a pickle and `unpickle` is False.
    """
    return backbone_of(tensors(source, unpickle=unpickle), source)


def tensors(source: Path, *, unpickle: bool = False) -> dict[str, np.ndarray]:
    """Reads a backbone's tensors by torchvision's names.

    Arguments and errors are those of `read`, which makes a backbone from the tensors.
    """
    if source.is_dir():
        return huggingface.read(source)
    if not source.name.endswith(tensor_files.TORCH_SUFFIXES):
        return of_backbone(read_safetensors(source), source)
    if not unpickle:
        raise ValueError(
            f"{source} is a pickle, from which only tensors can be read; convert it "
            "to safetensors by python -m logo_jax.convert with --unpickle"
        )
    return of_backbone(tensor_files.read_torch(source), source)


def of_backbone(found: Tensors, origin: Path) -> dict[str, np.ndarray]:
    """Selects the backbone's tensors of a file, by torchvision's names.

    Args:
        found: all tensors of the file, by name.
        origin: path of the file, for error messages.

    Raises:
        ValueError: if there is no backbone, or a tensor is unknown.
    """
    prefixes = [prefix for prefix in PREFIXES if prefix + STEM in found]
    if not prefixes:
        raise ValueError(
            f"{origin} has no {STEM}, with or without a prefix "
            f"({', '.join(filter(None, PREFIXES))}), so it is not a ResNet"
        )
    prefix = prefixes[0]
    chosen = {}
    for name, tensor in found.items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix):
            chosen[inner] = tensor
        elif not re.fullmatch(PREFIXES[prefix], name):
            raise ValueError(
                f"{origin} has {name}, which is neither part of the backbone {prefix} "
                "nor another known tensor; remove it from the file"
            )
    return {name: x for name, x in chosen.items() if not HEAD.fullmatch(name)}
