"""ResNets as the .pkl files that detectron2 reads.

Source: facebookresearch/detectron2@tools/convert-torchvision-to-d2.py (names and keys
    of the file); the channels of images stay red, green and blue.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from logo_jax.interop.backbone import Backbone
from logo_jax.interop.torchvision import tensors_of


def write(backbone: Backbone, file: Path) -> None:
    """Writes a .pkl file for MODEL.WEIGHTS.

    Raises:
        ValueError: if the backbone is not a ResNet with the ImageNet stem.
    """
    tensors = tensors_of(backbone)
    if backbone.module.stem != "imagenet":
        raise ValueError(
            "detectron2's ResNets begin with a 7x7 convolution and max-pooling, which "
            f"a ResNet with the stem {backbone.module.stem!r} does not have; use "
            "--to=torchvision"
        )
    model = {detectron2_name(name): x for name, x in tensors.items()}
    content = {"model": model, "__author__": "logo_jax", "matching_heuristics": True}
    file.write_bytes(pickle.dumps(content))


def detectron2_name(name: str) -> str:
    """Returns detectron2's name of a tensor of torchvision's ResNets.

    >>> detectron2_name("layer1.0.downsample.1.weight"), detectron2_name("bn1.bias")
    ('res2.0.shortcut.norm.weight', 'stem.conv1.norm.bias')
    """
    if "layer" not in name:
        name = f"stem.{name}"
    name = re.sub(r"layer(\d)", lambda found: f"res{int(found[1]) + 1}", name)
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace(
        "downsample.1", "shortcut.norm"
    )


def read(file: Path) -> dict[str, np.ndarray]:
    """Reads a file that `write` wrote, by torchvision's names.

    Raises:
        pickle.UnpicklingError: if the file has other objects than arrays and texts.
    """
    content = _Arrays(io.BytesIO(file.read_bytes())).load()
    return {torchvision_name(name): x for name, x in content["model"].items()}


class _Arrays(pickle.Unpickler):
    """Unpickles arrays; other objects could run code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Returns a function or class of NumPy with which arrays are pickled."""
        known = ("_reconstruct", "_frombuffer", "ndarray", "dtype")
        if module_name.split(".")[0] == "numpy" and global_name in known:
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not of an array")


def torchvision_name(name: str) -> str:
    """Returns torchvision's name of a tensor of detectron2's ResNets.

    >>> torchvision_name("res2.0.shortcut.norm.weight")
    'layer1.0.downsample.1.weight'
    """
    name = re.sub(r"res(\d)", lambda found: f"layer{int(found[1]) - 1}", name)
    name = name.removeprefix("stem.").replace("shortcut.norm", "downsample.1")
    return re.sub(r"conv(\d)\.norm", r"bn\1", name.replace("shortcut", "downsample.0"))
