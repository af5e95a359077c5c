"""Loads converted weights in PyTorch and compares the features.

python benchmarks/torch_weights.py [--archs=resnet18,resnet50] [--side=64]

For each ResNet, with random weights and statistics: `logo_jax.convert` writes
.safetensors and .pth files, which a PyTorch ResNet with torchvision's names, defined
here, loads strictly; and files in the formats of other programs are read back. If
transformers is installed, `ResNetModel.from_pretrained` reads the folder that convert
writes for it, and must report no missing or unexpected weights. Prints the largest
differences, relative to the largest feature; exit code 1 if one is 1e-4 or more. Needs
PyTorch (`-e ".[bench]"`).
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[1])]

from logo_jax import convert
from logo_jax.interop import pretrained_files
from logo_jax.interop.backbone import Backbone
from logo_jax.networks import resnet

ARCHS = {
    "resnet18_cifar": resnet.resnet18(stem="cifar"),
    "resnet18": resnet.resnet18(),
    "resnet34": resnet.resnet34(),
    "resnet50_cifar": resnet.resnet50(stem="cifar"),
    "resnet50": resnet.resnet50(),
}


class Block(nn.Module):
    """Torchvision's BasicBlock or Bottleneck."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        sizes, strides = (
            ((1, 3, 1), (1, stride, 1)) if bottleneck else ((3, 3), (stride, 1))
        )
        channels = [inputs, *[width] * (len(sizes) - 1), outputs]
        for i, (size, step) in enumerate(zip(sizes, strides, strict=True)):
            conv = nn.Conv2d(*channels[i : i + 2], size, step, size // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(channels[i + 1]))
        self.count = len(sizes)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's output."""
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(nn.Module):
    """Torchvision's ResNet without `fc`, or its CIFAR variant."""

    def __init__(self, depths: tuple[int, ...], bottleneck: bool, cifar: bool):
        super().__init__()
        size, stride = (3, 1) if cifar else (7, 2)
        self.conv1 = nn.Conv2d(3, 64, size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for i, depth in enumerate(depths):
            width, blocks = 64 * 2**i, []
            for j in range(depth):
                step = 2 if i and not j else 1
                blocks.append(Block(inputs, width, step, bottleneck))
                inputs = 4 * width if bottleneck else width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the pooled features."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return x.mean((2, 3))


def random_backbone(module: resnet.ResNet, seed: int) -> Backbone:
    """Returns a backbone with random statistics and scales."""
    image = jnp.zeros((1, 32, 32, 3))
    variables = module.init(jax.random.key(seed), image, train=False)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(
        lambda x: x if x.ndim > 1 else x + 0.2 * rng.random(x.shape, np.float32),
        variables,
    )
    return Backbone(module, moved)


def rival_of(module: resnet.ResNet) -> TorchResNet:
    bottleneck = module.block is resnet.Bottleneck
    return TorchResNet(module.stage_sizes, bottleneck, module.stem == "cifar").eval()


def by_torch(model: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found = model(torch.from_numpy(images).permute(0, 3, 1, 2))
    found = getattr(found, "pooler_output", found)
    return found.flatten(1).numpy()


def differences(
    backbone: Backbone, images: np.ndarray, folder: Path
) -> Iterator[tuple[str, float]]:
    """Yields the name of each comparison and the relative difference."""
    ours = backbone.features(images)
    subject = convert.ConvertInput(backbone, None, images.shape[1])
    rival = rival_of(backbone.module)
    loaders = {
        "w.safetensors": load_file,
        "w.pth": lambda file: torch.load(file, weights_only=True),
    }
    for name, load in loaders.items():
        convert.convert(subject, convert.TARGETS["torchvision"], folder / name)
        rival.load_state_dict(load(folder / name), strict=True)
        found = by_torch(rival, images)
        yield f"convert, {name}", convert.relative_difference(ours, found)
    for name, content in published(rival).items():
        torch.save(content, folder / "x.pth.tar")
        read = pretrained_files.read(folder / "x.pth.tar", unpickle=True)
        found = read.features(images)
        yield (
            f"read, {name}",
            convert.relative_difference(by_torch(rival, images), found),
        )
    if backbone.module.stem == "imagenet" and importlib.util.find_spec("transformers"):
        convert.convert(subject, convert.TARGETS["huggingface"], folder / "hf")
        found = by_torch(transformers_model(folder / "hf"), images)
        yield "convert, transformers", convert.relative_difference(ours, found)


def published(rival: nn.Module) -> dict[str, dict[str, Any]]:
    """Returns checkpoints in the formats of other programs."""
    one = torch.zeros(2)

    def checkpoint(state: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"epoch": 200, "arch": "x", "state_dict": state}

    def behind(prefix: str, head: str) -> dict[str, torch.Tensor]:
        return {f"{prefix}{name}": x for name, x in rival.state_dict().items()} | {
            f"{prefix}{head}.weight": one
        }

    queue = {"module.queue": one, "module.queue_ptr": one}
    byol = behind("online_encoder.net.", "fc") | behind("net.", "fc")
    byol |= {"online_encoder.projector.0.weight": one, "online_predictor.0.weight": one}
    trunk = {"trunk": behind("_feature_blocks.", "fc"), "heads": {}}
    return {
        "torchvision": behind("", "fc"),
        "moco v1": checkpoint(
            behind("module.encoder_q.", "fc")
            | behind("module.encoder_k.", "fc")
            | queue
        ),
        "moco v2": checkpoint(
            behind("module.encoder_q.", "fc.2")
            | behind("module.encoder_k.", "fc.2")
            | queue
        ),
        "moco v3": checkpoint(
            behind("module.base_encoder.", "fc.0")
            | behind("module.momentum_encoder.", "fc.0")
            | {"module.predictor.0.weight": one}
        ),
        "simsiam": checkpoint(
            behind("module.encoder.", "fc.1") | {"module.predictor.0.weight": one}
        ),
        "dino": {
            "student": {"module.backbone.conv1.weight": one},
            "teacher": behind("backbone.", "fc") | {"head.mlp.0.weight": one},
            "args": argparse.Namespace(arch="resnet50"),
            "optimizer": {"state": {0: {"exp_avg": one}}},
        },
        "vissl": {"classy_state_dict": {"base_model": {"model": trunk}}, "phase": 3},
        "byol": byol,
    }


def transformers_model(folder: Path) -> nn.Module:
    from transformers import ResNetModel

    model, info = ResNetModel.from_pretrained(folder, output_loading_info=True)
    strange = {name: keys for name, keys in info.items() if keys}
    if strange:
        raise ValueError(f"transformers reports {strange}")
    return model.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archs", default=",".join(ARCHS))
    parser.add_argument(
        "--side", type=int, default=64, help="side of the images, in pixels"
    )
    options = parser.parse_args()
    shape = (4, options.side, options.side, 3)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    worst = 0.0
    for seed, name in enumerate(options.archs.split(",")):
        backbone = random_backbone(ARCHS[name], seed)
        with tempfile.TemporaryDirectory() as folder:
            for what, difference in differences(backbone, images, Path(folder)):
                print(f"{name:15} {what:24} {difference:.1e}", flush=True)
                worst = max(worst, difference)
    return int(not worst < convert.LIMIT)


if __name__ == "__main__":
    sys.exit(main())
