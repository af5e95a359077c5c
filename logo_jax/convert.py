"""Converts encoders: ours to other libraries' files, and theirs to what evaluate reads.

    python -m logo_jax.convert WORKDIR --to=torchvision --out=resnet.safetensors
    python -m logo_jax.convert WORKDIR --to=huggingface --out=FOLDER
    python -m logo_jax.convert WORKDIR --to=stablehlo --out=encoder.stablehlo
    python -m logo_jax.convert moco_v2_800ep.pth.tar --unpickle --out=moco.safetensors

SOURCE is the folder of a run, whose newest checkpoint counts; a safetensors or PyTorch
file of torchvision, MoCo or SimSiam; or a ResNet's folder for transformers. Backbones
alone are converted: no classifier, no head. Torchvision's names in a safetensors file
are what `evaluate --weights` and `embed --weights` read; an OUT in .pth needs torch.
Compiled code takes uint8 images [b, s, s, 3] of any number, with s the run's
config.monitor.crop, or else the side of its global crops; `jax.export` reads it.

Prints how far the features of random images are from the source's, once read back; from
1e-4 of the largest on, nothing is kept. Exit codes: 0 converted; 2 bad input, told in
one line on stderr.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from logo_jax import _cli
from logo_jax.augment.color import AugmentSpec
from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.experiment import pretrained
from logo_jax.interop import (
    huggingface,
    pretrained_files,
    stablehlo,
    tensor_files,
    torchvision,
)
from logo_jax.interop.backbone import Backbone
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import atomic, workdir

LIMIT = 1e-4  # of the difference of features, relative to the largest
NUM_IMAGES = 4
SIDE = 64  # of the images that a file's features are compared on


class ConvertInput(NamedTuple):
    """What is converted.

    Attributes:
        backbone: with its weights.
        augment: how its images are normalised; None where nothing says.
        side: of its images, in pixels.
    """

    backbone: Backbone
    augment: AugmentSpec | None
    side: int


class Target(NamedTuple):
    """A form to convert to.

    Attributes:
        write: to a path.
        features: of uint8 images and the same normalised, by what is written there.
        suffixes: that its name may end with; none: any.
    """

    write: Callable[[ConvertInput, Path], None]
    features: Callable[[Path, np.ndarray, jax.Array], np.ndarray]
    suffixes: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    _cli.keep_compiled_code()
    with _cli.input_errors():
        _cli.require_new(options.out, options.overwrite)
        subject = read(options.source, unpickle=options.unpickle, seed=options.seed)
        difference = convert(subject, TARGETS[options.to], options.out)
    print(
        f"features of {NUM_IMAGES} random images of {subject.side} px, read back from "
        f"{options.out}, differ by {difference:.1e} of the largest (limit {LIMIT:.0e})"
    )
    if subject.augment:
        mean, std = subject.augment.mean, subject.augment.std
        print(f"its images are normalised with mean {mean} and std {std}")


def read(
    source: Path, *, unpickle: bool = False, seed: int | None = None
) -> ConvertInput:
    """The backbone of a run's newest checkpoint, or of others' files.

    Args:
        source: a run's folder, or what `sources.read` reads.
        unpickle: whether a PyTorch file may be read.
        seed: which one, of a run of several.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it cannot be read, and where the seed is not one of its.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} is not there; give a run's folder or a file")
    if not (source / "checkpoints").is_dir():
        if seed is not None:
            raise ValueError(f"--seed={seed} is of runs, and {source} is none")
        return ConvertInput(
            pretrained_files.read(source, unpickle=unpickle), None, SIDE
        )
    mesh = make_mesh(jax.devices()[:1])
    run = pretrained.from_run(source.absolute(), workdir.read_config(source), mesh)
    spec, backbone = run.spec, run.of_seed(seed).backbone
    side = spec.config.monitor.crop or spec.crops["global_crops"].size
    return ConvertInput(backbone, spec.config.augment, side)


def convert(subject: ConvertInput, target: Target, out: Path) -> float:
    """Writes a backbone and reads it back; returns the relative difference.

    Args:
        subject: to convert.
        target: the form.
        out: a file or folder, replaced where it is there.

    Raises:
        ValueError: where the form has no such network, and where features differ.
    """
    if target.suffixes and not out.name.endswith(target.suffixes):
        raise ValueError(f"--out={out} must end with {' or '.join(target.suffixes)}")
    shape = (NUM_IMAGES, subject.side, subject.side, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if subject.augment is None:  # a file does not say how images are normalized
        images = (jax.numpy.asarray(pixels, np.float32) / 255 - 0.5) / 0.25
    else:
        images = prepare_eval(jax.numpy.asarray(pixels), subject.augment)
    with atomic.replace(out) as partial:
        target.write(subject, partial)
        after = target.features(partial, pixels, images)
        difference = relative_difference(subject.backbone.features(images), after)
        if not difference < LIMIT:  # nor where it is not a number
            raise ValueError(
                f"{out} would give features that differ by {difference:.1e} of the "
                f"largest, limit {LIMIT:.0e}: not kept; are all weights finite?"
            )
    return difference


def relative_difference(
    before: Float[np.ndarray, "b f"], after: Float[np.ndarray, "b f"]
) -> float:
    """The largest difference, as a part of the largest feature.

    >>> relative_difference(np.array([[2.0, -4.0]]), np.array([[2.0, -3.0]]))
    0.25
    """
    return float(np.abs(after - before).max() / np.abs(before).max())


def _write_torchvision(subject: ConvertInput, path: Path) -> None:
    tensors = torchvision.tensors_of(subject.backbone)
    if path.name.endswith(tensor_files.TORCH_SUFFIXES):
        tensor_files.write_torch(tensors, path)
    else:
        tensor_files.write_safetensors(tensors, path)


def _torchvision_features(
    path: Path,
    pixels: UInt8[np.ndarray, "b s s 3"],
    images: Float[jax.Array, "b s s 3"],
) -> np.ndarray:
    del pixels
    return torchvision.features(pretrained_files.tensors(path, unpickle=True), images)


def _write_stablehlo(subject: ConvertInput, path: Path) -> None:
    if subject.augment is None:
        raise ValueError(
            "--to=stablehlo needs the folder of a run, whose config tells how images "
            "are normalised and how large they are"
        )
    serialized = stablehlo.serialize(subject.backbone, subject.augment, subject.side)
    path.write_bytes(serialized)


def _stablehlo_features(path: Path, pixels: np.ndarray, images: Any) -> np.ndarray:
    del images
    return stablehlo.features(path.read_bytes(), pixels)


TARGETS = {
    "torchvision": Target(
        _write_torchvision,
        _torchvision_features,
        (".safetensors", *tensor_files.TORCH_SUFFIXES),
    ),
    "huggingface": Target(
        lambda subject, path: huggingface.write(subject.backbone, path),
        _torchvision_features,
    ),
    "stablehlo": Target(_write_stablehlo, _stablehlo_features),
}


def _parser() -> _cli.Parser:
    parser = _cli.Parser("convert", __doc__)
    parser.add_argument(
        "source", metavar="SOURCE", type=_cli.path, help="what to convert"
    )
    parser.add_argument(
        "--to", choices=TARGETS, default="torchvision", help="default torchvision"
    )
    parser.add_out("what to write")
    parser.add_overwrite()
    parser.add_argument(
        "--unpickle", action="store_true", help="read tensors out of a .pth file"
    )
    parser.add_seed()
    return parser


if __name__ == "__main__":
    _cli.run(main)
