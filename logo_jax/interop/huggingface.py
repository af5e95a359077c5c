"""ResNets as Hugging Face transformers folders (config.json and model.safetensors).

Source: transformers.models.resnet (ResNetConfig, ResNetModel), for fields and names.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from logo_jax.interop import tensor_files
from logo_jax.interop.backbone import Backbone
from logo_jax.interop.torchvision import (
    STEM,
    Tensors,
    backbone_of,
    read_safetensors,
    tensors_of,
)
from logo_jax.networks.resnet import Bottleneck, ResNet

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def write(backbone: Backbone, folder: Path) -> None:
    """Writes config.json and model.safetensors for `ResNetModel`.

    Args:
        backbone: a ResNet with the ImageNet stem.
        folder: new folder to create.

    Raises:
        ValueError: if the backbone is not a ResNet with the ImageNet stem.
    """
    tensors = tensors_of(backbone)
    config = config_of(backbone.module, tensors[STEM].shape[1])
    theirs = {ours: theirs for theirs, ours in layers(config["depths"])}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        renamed[f"{theirs[layer]}.{leaf}"] = tensor
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    tensor_files.write_safetensors(renamed, folder / WEIGHTS_FILE)


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights in this format; a run has a config.json, too."""
    return (folder / WEIGHTS_FILE).is_file()


def read(folder: Path) -> dict[str, np.ndarray]:
    """Reads the weights of a ResNet folder, by torchvision's tensor names.

    The folder has the two files config.json and model.safetensors. The classifier is
    left out.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the model is not a ResNet that this library supports.
    """
    given = read_config(folder)
    depths = given.get("depths")
    if not isinstance(depths, list) or not all(isinstance(n, int) for n in depths):
        raise ValueError(
            f"{folder / CONFIG_FILE}: depths must be 4 integers, got {depths}"
        )
    ours = dict(layers(depths))
    tensors = {}
    for name, tensor in read_safetensors(folder / WEIGHTS_FILE).items():
        layer, _, leaf = name.removeprefix("resnet.").rpartition(".")
        if not layer.startswith("classifier"):
            tensors[f"{ours.get(layer, layer)}.{leaf}"] = tensor
    _require_same(given, tensors, folder)
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """Reads config.json.

    Raises:
        FileNotFoundError: if config.json is missing.
        ValueError: if config.json is damaged or is not of a ResNet.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no {CONFIG_FILE}; give the folder of a ResNet"
        )
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged ({error}); restore it from a copy"
        ) from error
    if not isinstance(config, dict) or config.get("model_type") != "resnet":
        raise ValueError(
            f"{file} must have model_type 'resnet', the only supported model; give "
            "the folder of a ResNet or of a run"
        )
    return config


def _require_same(given: dict[str, Any], tensors: Tensors, folder: Path) -> None:
    """Raises ValueError if the config differs from our ResNet of the same shapes."""
    module = backbone_of(tensors, folder / WEIGHTS_FILE).module
    for name, value in config_of(module, tensors[STEM].shape[1]).items():
        if name != "architectures" and given.get(name, value) != value:
            raise ValueError(
                f"{folder / CONFIG_FILE}: {name}={given[name]} must be {value} for "
                "these weights and this library's ResNets; give another model"
            )


def config_of(module: ResNet, channels: int = 3) -> dict[str, Any]:
    """Returns the fields of transformers' ResNetConfig.

    Args:
        module: the ResNet.
        channels: number of channels of its images.

    Raises:
        ValueError: if the ResNet has the CIFAR stem, which ResNetModel does not have.
    """
    if module.stem != "imagenet":
        raise ValueError(
            "transformers' ResNetModel begins with a 7x7 convolution and max-pooling, "
            "which a ResNet with the CIFAR stem does not have; use --to=torchvision"
        )
    bottleneck = module.block is Bottleneck
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": channels,
        "embedding_size": module.width,
        "hidden_sizes": [
            module.width * 2**i * module.block.expansion
            for i in range(len(module.stage_sizes))
        ],
        "depths": list(module.stage_sizes),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def layers(depths: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yields transformers' and torchvision's names of every possible ResNet layer.

    >>> dict(layers([1]))["encoder.stages.0.layers.0.layer.1.normalization"]
    'layer1.0.bn2'
    """
    yield "embedder.embedder.convolution", "conv1"
    yield "embedder.embedder.normalization", "bn1"
    for stage, depth in enumerate(depths):
        for i in range(depth):
            theirs, ours = f"encoder.stages.{stage}.layers.{i}", f"layer{stage + 1}.{i}"
            yield f"{theirs}.shortcut.convolution", f"{ours}.downsample.0"
            yield f"{theirs}.shortcut.normalization", f"{ours}.downsample.1"
            for j in range(3):
                yield f"{theirs}.layer.{j}.convolution", f"{ours}.conv{j + 1}"
                yield f"{theirs}.layer.{j}.normalization", f"{ours}.bn{j + 1}"
