"""Converts encoders to the file formats of other libraries, and from them.

    python -m logo_jax.convert WORKDIR --to=torchvision --out=resnet.safetensors
    python -m logo_jax.convert WORKDIR --to=huggingface --out=FOLDER
    python -m logo_jax.convert WORKDIR --to=timm --out=encoder.safetensors
    python -m logo_jax.convert WORKDIR --to=detectron2 --out=resnet.pkl
    python -m logo_jax.convert WORKDIR --to=onnx --out=encoder.onnx
    python -m logo_jax.convert WORKDIR --to=stablehlo --out=encoder.stablehlo
    python -m logo_jax.convert moco_v2_800ep.pth.tar --unpickle --out=moco.safetensors

SOURCE is one of: the folder of a run, of which the newest checkpoint is converted; a
safetensors or PyTorch file of torchvision, timm, MoCo, SimSiam, DINO, VISSL or BYOL;
the folder of a ResNet in the format of transformers; the classifier folder of
`evaluate --protocol=finetune`. Only the backbone is converted, without projection head;
the classifier of such a folder is written for torchvision, timm and ONNX. `evaluate
--weights` and `embed --weights` read safetensors files with torchvision's names, and
`embed` those of vision transformers with timm's names. A .pth file as OUT needs torch.

ResNets can be converted to all formats; timm needs the ImageNet stem and width 64, and
detectron2 and transformers the ImageNet stem. Vision transformers can be converted to
timm, onnx and stablehlo, and backbones of one's own to stablehlo. An ONNX file takes
normalized float32 images [b, 3, h, w], and needs the extra `onnx`. StableHLO code,
which `jax.export` reads, takes uint8 images [b, s, s, 3]. The batch size b is free; s,
and h and w of a vision transformer, are the run's config.monitor.crop, or the side of
its global crops if that is 0.

The file is read back, and the largest difference between its features of random images
and those of the source is printed. If it is 1e-4 of the largest feature or more, the
file is not kept.

Exit codes: 0 if the encoder is converted; 2 for bad input, which is reported in one
line on stderr.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from logo_jax import _cli, zoo
from logo_jax.augment.color import AugmentSpec
from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.experiment import classifier_folder, pretrained
from logo_jax.interop import (
    detectron2,
    huggingface,
    onnx,
    pretrained_files,
    stablehlo,
    tensor_files,
    timm,
    torchvision,
    vit_names,
)
from logo_jax.interop.backbone import Backbone, Classifier
from logo_jax.parallel.mesh import all_devices, make_mesh
from logo_jax.training import atomic, workdir

LIMIT = 1e-4  # difference of features, relative to the largest feature
NUM_IMAGES = 4
SIDE = 64  # side in pixels of the random images for a ResNet from a file


class ConvertInput(NamedTuple):
    """Encoder to convert.

    Attributes:
        backbone: the backbone with its weights.
        augment: its `mean` and `std` normalize the images; None if they are unknown.
        side: side of its images, in pixels.
        dtype: type of the values of its images.
        classifier: classifier of its features; None if it has none.
    """

    backbone: Backbone
    augment: AugmentSpec | None
    side: int
    dtype: str = "uint8"
    classifier: Classifier | None = None

    def outputs(self, images: jax.Array) -> np.ndarray:
        """Returns features of normalized images, or scores if there is a classifier."""
        features = self.backbone.features(images)
        if self.classifier is None:
            return features
        return features @ self.classifier.kernel + self.classifier.bias


class Target(NamedTuple):
    """Format to convert to.

    Attributes:
        write: writes an encoder to a path.
        features: returns the features that the written encoder computes, from its path,
            uint8 images and the same images normalized.
        suffixes: suffixes that the file name may have; empty: any.
        classifies: whether a classifier is written, too; `features` returns its scores.
    """

    write: Callable[[ConvertInput, Path], None]
    features: Callable[[Path, np.ndarray, jax.Array], np.ndarray]
    suffixes: tuple[str, ...] = ()
    classifies: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    _cli.keep_compiled_code()
    with _cli.input_errors():
        _cli.require_new(options.out, options.overwrite)
        if pretrained.is_run(options.out):
            raise ValueError(
                f"--out={options.out} is the folder of a run, whose config.json may be "
                "replaced; give another path"
            )
        subject = read(
            options.source,
            unpickle=options.unpickle,
            **_cli.given(options, ("channels", "seed", "step", "encoder")),
        )
        difference = convert(subject, TARGETS[options.to], options.out)
    print(
        f"features of {NUM_IMAGES} random images of {subject.side} px, read back from "
        f"{options.out}, differ by {difference:.1e} of the largest (limit {LIMIT:.0e})"
    )
    if subject.augment:
        mean, std = subject.augment.mean, subject.augment.std
        low, high = subject.augment.value_range
        print(
            f"images must be normalized with mean {mean} and std {std}, after {low:g} "
            f"has become 0 and {high:g} 1"
        )


def read(
    source: Path,
    *,
    unpickle: bool = False,
    channels: int | None = None,
    seed: int | None = None,
    step: int | None = None,
    encoder: str | None = None,
) -> ConvertInput:
    """Reads the backbone of a run, or of another library's file.

    Args:
        source: folder of a run; or a safetensors file, a PyTorch file, or a folder of
            Hugging Face transformers, with a ResNet.
        unpickle: whether PyTorch files may be read. They are pickles, which could
            contain code; only their tensors are read.
        channels: number of channels that weights of 3 channels are changed to, of a
            file; None: as in the file.
        seed: the seed to convert; needed for a run of several seeds.
        step: step of the run's checkpoint; the newest one if None.
        encoder: a name in `pretrained.ENCODERS`; the trained one if None.

    Raises:
        FileNotFoundError: if the source does not exist.
        ValueError: if the source cannot be read, or the run does not have the seed, the
            step or the encoder.
    """
    source = zoo.located(source)
    if not source.exists():
        raise FileNotFoundError(
            f"{source} does not exist; give the folder of a run, a file, or a name of "
            f"the zoo: {', '.join(zoo.names())}"
        )
    of_run = {"seed": seed, "step": step, "encoder": encoder}
    if classifier_folder.is_classifier(source):
        _refuse("runs", source, "a classifier", **of_run)
        _refuse("files", source, "a classifier", channels=channels)
        return _of_classifier(classifier_folder.read(source))
    if not (source / "checkpoints").is_dir():
        _refuse("runs", source, "not a run", **of_run)
        backbone = pretrained_files.read(source, unpickle=unpickle, channels=channels)
        vit = vit_names.vit_of(backbone.module)
        return ConvertInput(backbone, None, vit_names.side_of(vit) if vit else SIDE)
    _refuse("files", source, "a run, whose channels are known", channels=channels)
    mesh = make_mesh(all_devices()[:1])
    run = pretrained.from_run(
        source.absolute(),
        workdir.read_config(source),
        mesh,
        step=step,
        encoder=encoder or pretrained.ONLINE,
    )
    spec = run.spec
    backbone = run.of_seed(seed).backbone
    side = spec.config.monitor.crop or spec.crops["global_crops"].size
    dtype = spec.config.data.location.decoding.dtype or "uint8"
    return ConvertInput(backbone, spec.config.augment.policy, side, dtype)


def _refuse(kind: str, source: Path, other: str, **flags: Any) -> None:
    for name, x in flags.items():
        if x is not None:
            raise ValueError(
                f"--{name}={x} is for {kind}, but {source} is {other}; remove --{name}"
            )


def _of_classifier(found: classifier_folder.ClassifierFolder) -> ConvertInput:
    linear = {name: np.asarray(x, np.float32) for name, x in found.linear.items()}
    return ConvertInput(
        Backbone(found.module, found.variables),
        found.augment,
        found.crop or SIDE,
        found.decoding.dtype or "uint8",
        Classifier(linear["kernel"], linear["bias"], tuple(found.class_names)),
    )


def convert(subject: ConvertInput, target: Target, out: Path) -> float:
    """Writes a backbone, reads it back and returns the relative difference of features.

    Args:
        subject: the encoder to convert.
        target: the format to convert to, such as `TARGETS["torchvision"]`.
        out: the file or folder to write; a file is replaced if it exists, and in a
            folder, the files of the same names.

    Raises:
        ValueError: if the format does not support the network, or features differ.
    """
    if target.suffixes and not out.name.endswith(target.suffixes):
        raise ValueError(f"--out={out} must end with {' or '.join(target.suffixes)}")
    if not target.classifies:
        subject = subject._replace(classifier=None)
    channels = _num_channels(subject)
    shape = (NUM_IMAGES, subject.side, subject.side, channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if subject.augment and subject.dtype != "uint8":
        low, high = subject.augment.value_range
        pixels = (low + pixels / 255 * (high - low)).astype(subject.dtype)
    if subject.augment is None:  # a file does not contain the normalization
        images = (jax.numpy.asarray(pixels, np.float32) / 255 - 0.5) / 0.25
    else:
        images = prepare_eval(jax.numpy.asarray(pixels), subject.augment)
    with atomic.replace(out) as partial:
        target.write(subject, partial)
        after = target.features(partial, pixels, images)
        difference = relative_difference(subject.outputs(images), after)
        if not difference < LIMIT:  # also refuses NaN
            raise ValueError(
                f"{out} was not kept: its features would differ by "
                f"{difference:.1e} of the largest (limit {LIMIT:.0e}); check that all "
                "weights are finite"
            )
    return difference


def _num_channels(subject: ConvertInput) -> int:
    if subject.augment:
        return len(subject.augment.mean)
    backbone = subject.backbone
    if vit_names.vit_of(backbone.module):
        return vit_names.to_timm(backbone, subject.side)[vit_names.STEM].shape[1]
    return torchvision.tensors_of(backbone)[torchvision.STEM].shape[1]


def relative_difference(
    before: Float[np.ndarray, "b f"], after: Float[np.ndarray, "b f"]
) -> float:
    """Returns the largest absolute difference, as a fraction of the largest feature.

    >>> relative_difference(np.array([[2.0, -4.0]]), np.array([[2.0, -3.0]]))
    0.25
    """
    return float(np.abs(after - before).max() / np.abs(before).max())


def _write_torchvision(subject: ConvertInput, path: Path) -> None:
    tensors = torchvision.tensors_of(subject.backbone)
    tensors |= subject.classifier.tensors("fc") if subject.classifier else {}
    if path.name.endswith(tensor_files.TORCH_SUFFIXES):
        tensor_files.write_torch(tensors, path)
    else:
        tensor_files.write_safetensors(tensors, path)


def _torchvision_features(
    path: Path,
    pixels: np.ndarray,
    images: Float[jax.Array, "b s s c"],
) -> np.ndarray:
    del pixels
    features = torchvision.features(
        pretrained_files.tensors(path, unpickle=True), images
    )
    return _scores(path, features)


def _scores(path: Path, features: np.ndarray) -> np.ndarray:
    """Returns the scores of the classifier in a file; the features if it has none."""
    if path.is_dir():
        return features
    found = pretrained_files.all_tensors(path, unpickle=True)
    name = "head" if vit_names.STEM in found else "fc"
    if f"{name}.weight" not in found:
        return features
    return features @ found[f"{name}.weight"].T + found[f"{name}.bias"]


def _timm_features(
    path: Path, pixels: np.ndarray, images: Float[jax.Array, "b s s c"]
) -> np.ndarray:
    read = pretrained_files.read(path, unpickle=True)
    if vit_names.vit_of(read.module):
        return _scores(path, read.features(images))
    return _torchvision_features(path, pixels, images)


def _write_onnx(subject: ConvertInput, path: Path) -> None:
    channels = _num_channels(subject)
    onnx.write(
        subject.backbone,
        subject.side,
        channels,
        subject.augment,
        subject.classifier,
        path,
    )


def _write_stablehlo(subject: ConvertInput, path: Path) -> None:
    if subject.augment is None:
        raise ValueError(
            "--to=stablehlo needs the folder of a run, because the config of the run "
            "has the normalization and the size of images"
        )
    serialized = stablehlo.serialize(
        subject.backbone, subject.augment, subject.side, subject.dtype
    )
    path.write_bytes(serialized)


def _stablehlo_features(path: Path, pixels: np.ndarray, images: Any) -> np.ndarray:
    del images
    return stablehlo.features(path.read_bytes(), pixels)


TARGETS = {
    "torchvision": Target(
        _write_torchvision,
        _torchvision_features,
        (".safetensors", *tensor_files.TORCH_SUFFIXES),
        classifies=True,
    ),
    "huggingface": Target(
        lambda subject, path: huggingface.write(subject.backbone, path),
        _torchvision_features,
    ),
    "timm": Target(
        lambda subject, path: timm.write(
            subject.backbone, subject.side, subject.classifier, path
        ),
        _timm_features,
        (".safetensors", *tensor_files.TORCH_SUFFIXES),
        classifies=True,
    ),
    "detectron2": Target(
        lambda subject, path: detectron2.write(subject.backbone, path),
        lambda path, _, images: torchvision.features(detectron2.read(path), images),
        (".pkl",),
    ),
    "onnx": Target(
        _write_onnx,
        lambda path, _, images: onnx.features(path, images),
        (".onnx",),
        classifies=True,
    ),
    "stablehlo": Target(_write_stablehlo, _stablehlo_features),
}


def _parser() -> _cli.Parser:
    parser = _cli.Parser("convert", __doc__)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=_cli.path,
        help="run, weights file, or name of the zoo to convert",
    )
    parser.add_argument(
        "--to",
        choices=TARGETS,
        default="torchvision",
        help="format to convert to; default torchvision",
    )
    parser.add_out("file or folder to write")
    parser.add_overwrite()
    parser.add_argument(
        "--unpickle",
        action="store_true",
        help="allow reading PyTorch files (only tensors are unpickled)",
    )
    parser.add_argument(
        "--channels",
        metavar="N",
        type=_cli.at_least(1),
        help="for a file with weights of 3 channels: change them to N channels",
    )
    parser.add_seed()
    parser.add_checkpoint(pretrained.ENCODERS)
    return parser


if __name__ == "__main__":
    _cli.run(main)
