"""Reads the backbones of published checkpoints: ResNets and vision transformers.

Supported are the files of torchvision and timm, the checkpoints of MoCo (v1, v2 and
v3), SimSiam, DINO, VISSL and lucidrains' BYOL, and of other programs that put a prefix
before the tensor names of torchvision or timm, each also as safetensors, and folders of
Hugging Face transformers. Classifiers, projectors, predictors, momentum encoders and
queues are skipped; any other tensor is an error that names it.
"""

import re
from pathlib import Path

import numpy as np

from logo_jax.interop import huggingface, tensor_files, torchvision, vit_names
from logo_jax.interop.backbone import Backbone
from logo_jax.interop.channels import spread
from logo_jax.interop.torchvision import Tensors, read_safetensors
from logo_jax.storage import copies

STEMS = (torchvision.STEM, vit_names.STEM)
# Parts of the prefix that the backbone's tensor names may have, such as
# "module.encoder_q." of MoCo, "module.base_encoder." of MoCo v3, "module.encoder." of
# SimSiam, "_feature_blocks." of VISSL and "online_encoder.net." of BYOL.
PREFIXES = (
    "module",  # DistributedDataParallel
    "model",
    "backbone",
    "encoder",
    "encoder_q",
    "base_encoder",
    "online_encoder",
    "net",
    "base_model",
    "trunk",
    "_feature_blocks",
    "student",
    "teacher",
)
_PREFIX = rf"(?:(?:{'|'.join(PREFIXES)})\.)*"
_BEFORE_STEM = re.compile(rf"({_PREFIX})(?:{'|'.join(map(re.escape, STEMS))})")
# In the backbone: a classifier, or the projector that replaces it.
_HEAD = re.compile(r"(fc|head|classifier)\..*")
# Outside of it: the other networks and the queue of a method.
_OTHERS = re.compile(
    rf"{_PREFIX}(encoder_k|momentum_encoder|target_encoder|student|teacher|predictor|"
    r"online_predictor|projector|projection_head|prototypes|head|fc|classifier|queue|"
    r"queue_ptr)(\..*)?"
)
_SAME = re.compile(r"net\..*")  # BYOL stores its encoder twice


def read(
    source: Path, *, unpickle: bool = False, channels: int | None = None
) -> Backbone:
    """Reads the backbone of a file or of a transformers folder.

    Args:
        source: a safetensors file, a PyTorch file, or a transformers folder.
        unpickle: whether PyTorch files, which are pickles, may be read.
        channels: number of channels of the backbone, to which weights of 3 channels are
            changed (`channels.spread`); None: as in the file.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file does not contain a supported network (the message names
            the tensor) of so many channels, or is a pickle and `unpickle` is False.
    """
    found, prefix = _tensors_and_prefix(source, unpickle)
    is_vit = vit_names.STEM in found
    stem = vit_names.STEM if is_vit else torchvision.STEM
    has = found[stem].shape[1]
    if channels not in (None, has) and has == 3:
        found[stem] = spread(found[stem], channels, axis=1)
    elif channels not in (None, has):
        raise ValueError(
            f"{source} has weights of {has} channels, which cannot be used for "
            f"{channels}; give {has} values for mean and std, or --channels={has}"
        )
    if not is_vit:
        return torchvision.backbone_of(found, source)._replace(prefix=prefix)
    heads = tensor_files.metadata(copies.on_disk(source)).get("heads", "")
    count = int(heads) if heads.isdecimal() else None
    return vit_names.backbone_of(found, source, count)._replace(prefix=prefix)


def tensors(source: Path, *, unpickle: bool = False) -> dict[str, np.ndarray]:
    """Reads a backbone's tensors by the names of torchvision or, of a ViT, of timm.

    Arguments and errors are those of `read`, which makes a backbone from the tensors.
    """
    return _tensors_and_prefix(source, unpickle)[0]


def _tensors_and_prefix(
    source: Path, unpickle: bool
) -> tuple[dict[str, np.ndarray], str]:
    source = copies.on_disk(source)
    if source.is_dir():
        return huggingface.read(source), ""
    return of_backbone(all_tensors(source, unpickle=unpickle), source)


def all_tensors(source: Path, *, unpickle: bool = False) -> dict[str, np.ndarray]:
    """Reads all tensors of a file by their names in it; errors are those of `read`."""
    if not source.name.endswith(tensor_files.TORCH_SUFFIXES):
        return read_safetensors(source)
    if not unpickle:
        raise ValueError(
            f"{source} is a pickle, from which only tensors can be read; convert it "
            "to safetensors by python -m logo_jax.convert with --unpickle"
        )
    return tensor_files.read_torch(source)


def of_backbone(found: Tensors, origin: Path) -> tuple[dict[str, np.ndarray], str]:
    """Selects the backbone's tensors of a file.

    If there are several backbones, a teacher is taken before a student, and the online
    encoder of BYOL before the copy of it that its file has.

    Args:
        found: all tensors of the file, by name.
        origin: path of the file, for error messages.

    Returns:
        The tensors by the names of torchvision or, of a vision transformer, of timm,
        and the prefix of the names in the file.

    Raises:
        ValueError: if there is no backbone, or a tensor is unknown.
    """
    stems = filter(None, map(_BEFORE_STEM.fullmatch, found))
    prefixes = sorted(
        (stem[1] for stem in stems), key=lambda x: ("teacher" not in x, x == "net.")
    )
    if not prefixes:
        raise ValueError(
            f"{origin} has no {' and no '.join(STEMS)}, with or without a prefix of "
            f"{', '.join(PREFIXES)}, so it is neither a ResNet nor a vision transformer"
        )
    prefix = prefixes[0]
    chosen = {}
    for name, tensor in found.items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and not _HEAD.fullmatch(inner):
            chosen[inner] = tensor
        elif not name.startswith(prefix) and not _is_other(name, prefix):
            raise ValueError(
                f"{origin} has {name}, which is neither part of the backbone {prefix} "
                "nor another known tensor; remove it from the file"
            )
    return chosen, prefix


def _is_other(name: str, prefix: str) -> bool:
    is_copy = prefix == "online_encoder.net." and _SAME.fullmatch(name)
    return bool(is_copy or _OTHERS.fullmatch(name))
