"""Exports random weights and computes the features with the programs that read them.

    python -m benchmarks.weights_out [--models=resnet18,resnet50,vit_tiny]

For each model: `convert --to=timm` is loaded by timm with strict=True; `--to=onnx` is
run by onnxruntime; the .pkl of `--to=detectron2` is loaded by detectron2's ResNet, if
that is installed, or else its names are translated by `of_detectron2`, which is written
independently, and loaded by torchvision. timm's vision transformers with learned
positions and ResNets are read by `pretrained_files`. Prints a line of a Markdown table
for each: the largest difference relative to the largest feature. Exit code 1 if one is
1e-4 or more. Needs `-e ".[onnx]"` and timm.
"""

import argparse
import pickle
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from logo_jax import convert
from logo_jax.experiment import networks
from logo_jax.interop import pretrained_files
from logo_jax.interop.backbone import Backbone, Classifier
from logo_jax.networks.folded_views import FoldedViews

TIMM = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
}
SIDE = 224


def random_backbone(name: str, seed: int = 0, **options: object) -> Backbone:
    """Returns a backbone whose weights, scales and statistics are random."""
    module = networks.BACKBONES[name](**options)
    if name.startswith("vit"):
        module = FoldedViews(module)
    image = jnp.zeros((1, SIDE, SIDE, 3))
    key = jax.random.key(seed)
    variables = jax.jit(lambda: module.init(key, image, train=False))()
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(
        lambda x: x if x.ndim > 1 else x + 0.2 * rng.random(x.shape, np.float32),
        variables,
    )
    return Backbone(module, moved)


def by_torch(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


def of_detectron2(model: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Names of detectron2's ResNets (modeling/backbone/resnet.py) in torchvision's."""
    found = {}
    for stage in range(2, 6):
        for name in [x for x in model if x.startswith(f"res{stage}.")]:
            _, block, layer, *rest = name.split(".")
            theirs = {"shortcut": "downsample.0"}.get(layer, layer)
            if rest[0] == "norm":
                theirs = "downsample.1" if layer == "shortcut" else f"bn{layer[-1]}"
            found[f"layer{stage - 1}.{block}.{theirs}.{rest[-1]}"] = model[name]
    found["conv1.weight"] = model["stem.conv1.weight"]
    for name in [x for x in model if x.startswith("stem.conv1.norm.")]:
        found[f"bn1.{name.rpartition('.')[-1]}"] = model[name]
    if len(found) != len(model):
        raise ValueError(f"{len(model) - len(found)} tensors have unknown names")
    return {name: torch.tensor(x) for name, x in found.items()}


def receipts(name: str, folder: Path) -> Iterator[tuple[str, str, str, float]]:
    """Yields the name, the format, the program that read it, and the difference."""
    backbone = random_backbone(name)
    images = np.random.default_rng(1).standard_normal((2, SIDE, SIDE, 3), np.float32)
    ours = backbone.features(images)
    subject = convert.ConvertInput(backbone, None, SIDE)

    def differs(found: np.ndarray) -> float:
        return convert.relative_difference(ours, found)

    program = f"onnxruntime {onnxruntime.__version__}"
    yield name, "onnx", program, differs(by_onnxruntime(subject, images, folder))
    if name not in TIMM:
        return
    yield from receipts_of_classifier(name, subject, images, folder)
    out = folder / "x.safetensors"
    convert.convert(subject, convert.TARGETS["timm"], out)
    model = timm.create_model(TIMM[name], num_classes=0)
    model.load_state_dict(load_file(out), strict=True)
    yield name, "timm", f"timm {timm.__version__}", differs(by_torch(model, images))
    yield name, "from timm", "logo_jax", read_from_timm(name, images, folder)
    if name.startswith("vit"):
        return
    out = folder / "x.pkl"
    convert.convert(subject, convert.TARGETS["detectron2"], out)
    model = getattr(torchvision.models, name)()
    model.fc = torch.nn.Identity()
    model.load_state_dict(of_detectron2(pickle.loads(out.read_bytes())["model"]))
    program = f"torchvision {torchvision.__version__}, names translated"
    yield name, "detectron2", program, differs(by_torch(model, images))


def by_onnxruntime(
    subject: convert.ConvertInput, images: np.ndarray, folder: Path
) -> np.ndarray:
    convert.convert(subject, convert.TARGETS["onnx"], folder / "x.onnx")
    session = onnxruntime.InferenceSession(
        folder / "x.onnx", providers=["CPUExecutionProvider"]
    )
    nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return session.run(None, {"images": nchw})[0]


def receipts_of_classifier(
    name: str, subject: convert.ConvertInput, images: np.ndarray, folder: Path
) -> Iterator[tuple[str, str, str, float]]:
    """Yields those of the scores of a random classifier of 5 classes."""
    width = subject.backbone.features(images).shape[1]
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal((width, 5)).astype(np.float32)
    subject = subject._replace(
        classifier=Classifier(kernel, np.arange(5, dtype=np.float32), tuple("abcde"))
    )
    ours = subject.outputs(images)
    found = by_onnxruntime(subject, images, folder)
    program = f"onnxruntime {onnxruntime.__version__}"
    difference = convert.relative_difference(ours, found)
    yield name, "onnx, with classifier", program, difference
    out = folder / "classifier.safetensors"
    convert.convert(subject, convert.TARGETS["timm"], out)
    model = timm.create_model(TIMM[name], num_classes=5)
    model.load_state_dict(load_file(out), strict=True)
    difference = convert.relative_difference(ours, by_torch(model, images))
    yield name, "timm, with classifier", f"timm {timm.__version__}", difference


def read_from_timm(name: str, images: np.ndarray, folder: Path) -> float:
    """Difference of the features of a random model of timm, and of ours of its file."""
    torch.manual_seed(0)
    model = timm.create_model(TIMM[name], num_classes=10)
    save_file(model.state_dict(), folder / "timm.safetensors")
    found = pretrained_files.read(folder / "timm.safetensors").features(images)
    model.reset_classifier(0)
    return convert.relative_difference(by_torch(model, images), found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="resnet18,resnet34,resnet50,vit_tiny")
    options = parser.parse_args(arguments)
    print("| network | format | read by | largest difference |\n|---|---|---|---|")
    worst = 0.0
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for *words, difference in receipts(name, Path(folder)):
                print(f"| {' | '.join(words)} | {difference:.1e} |", flush=True)
                worst = max(worst, difference)
    return int(not worst < convert.LIMIT)


if __name__ == "__main__":
    sys.exit(main())
