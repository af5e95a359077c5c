"""Writes the features of a folder's images, by the encoder of a run or of a file.

    python -m logo_jax.embed DIR --workdir=WORKDIR --out=features.npz
    python -m logo_jax.embed DIR --weights=resnet50.safetensors --out=features.parquet

All images below DIR, resized and cut to their centres as by `evaluate`: as a run's own
config.monitor has it, for others' weights to 256 and 224. OUT has, in the order of the
paths, `files`, relative to DIR, and `features`, float32; where all images lie in
sub-folders, the first ones are their classes: `labels`, and `class_names` by label. A
.parquet has the columns file, features, label and class_name. An image that cannot be
decoded is named, and nothing is written.

Exit codes: 0 written; 2 bad input, told in one line on stderr.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from jax.sharding import Mesh
from pyarrow import parquet

from logo_jax import _cli
from logo_jax.augment.color import AugmentSpec
from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.configs import base, base_imagenet
from logo_jax.data.canvas import decode_failure, read_eval_crops
from logo_jax.data.eval_crops import in_chunks
from logo_jax.data.sources.folder import FolderSource, load_unsplit_folder
from logo_jax.evaluation.features import Features, extract
from logo_jax.experiment import pretrained
from logo_jax.interop import pretrained_files
from logo_jax.interop.backbone import Backbone
from logo_jax.parallel.mesh import batch_sharding, make_mesh, place, replicate
from logo_jax.training import atomic, workdir

RESIZE, CROP = 256, 224  # of those who publish weights for ImageNet


@dataclasses.dataclass(frozen=True)
class EmbedSpec:
    """What an encoder is, and what it sees of an image.

    Attributes:
        backbone: with its weights.
        augment: how images are normalised.
        resize: short side of the whole image, in pixels.
        crop: side of its centre square.

    Raises:
        ValueError: where the square is not in the image.
    """

    backbone: Backbone
    augment: AugmentSpec
    resize: int
    crop: int

    def __post_init__(self):
        if not 0 < self.crop <= self.resize:
            raise ValueError(
                f"--crop={self.crop} must be between 1 and --resize={self.resize}, the "
                "short side that images are brought to; give both, e.g. 224 and 256"
            )


@dataclasses.dataclass(frozen=True)
class Squares:
    """Centres of all images of a folder: `Labelled`, and none may be left out.

    Attributes:
        source: of images.
        resize: short side before the cut, in pixels.
        crop: side of the square.
    """

    source: FolderSource
    resize: int
    crop: int

    def __len__(self) -> int:
        return len(self.source)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images, uint8 [b, crop, crop, 3], and labels, int32 [b].

        Raises:
            ValueError: for an image that cannot be decoded.
        """
        read = functools.partial(
            read_eval_crops, self.source, resize=self.resize, crop=self.crop
        )
        for ids, part in in_chunks(read, np.arange(len(self)), threads=0):
            for i in ids[part.failed]:
                raise ValueError(
                    f"{self.source.name(i)} cannot be decoded "
                    f"({decode_failure(self.source, i)}); mend or remove it"
                )
            yield part.images, part.labels


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    _cli.keep_compiled_code()
    with _cli.input_errors():
        write = writer(options.out)
        _cli.require_new(options.out, options.overwrite)
        images = load_unsplit_folder(options.folder)
        view = read_view(options)
        features = embed(images, view, make_mesh(), options.batch_size)
        with atomic.replace(options.out) as partial:
            write(partial, images, features)
    labelled = f"{images.num_classes} classes" if images.labels else "no classes"
    print(
        f"{len(images):,} images of {images.origin}, {labelled}, resized to "
        f"{view.resize} px and cut to {view.crop}, mean {view.augment.mean}, std "
        f"{view.augment.std}: {features.features.shape[1]} features each"
    )
    print(f"wrote {options.out}")


def read_view(options: argparse.Namespace) -> EmbedSpec:
    """The encoder that the command line names, and what it is to see.

    Raises:
        FileNotFoundError: where it is not there.
        ValueError: where it cannot be read, or flags contradict each other.
    """
    sizes = _given(options, "resize", "crop")
    if options.workdir is not None:
        _require_absent(options, "--workdir", ("mean", "std"))
        return _of_run(options.workdir, options.seed, sizes)
    _require_absent(options, "--weights", ("seed",))
    config = base.get_config("simsiam")
    base_imagenet.set_images(config)
    normalization = _given(options, "mean", "std")
    augment = AugmentSpec(**config.to_dict()["augment"] | normalization)
    sizes = {"resize": RESIZE, "crop": CROP} | sizes
    return EmbedSpec(pretrained_files.read(options.weights), augment, **sizes)


def _of_run(source: Path, seed: int | None, sizes: dict[str, int]) -> EmbedSpec:
    config = workdir.read_config(source)
    changed = {**config, "monitor": {**config["monitor"], **sizes}}
    one_device = make_mesh(jax.devices()[:1])
    run = pretrained.from_run(source.absolute(), changed, one_device).of_seed(seed)
    monitor = run.spec.config.monitor
    augment = run.spec.config.augment
    return EmbedSpec(run.backbone, augment, monitor.resize, monitor.crop)


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    found = {name: getattr(options, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _require_absent(
    options: argparse.Namespace, given: str, names: Sequence[str]
) -> None:
    for name in _given(options, *names):
        raise ValueError(f"--{name} is not read with {given}; leave it out")


def embed(
    images: FolderSource, view: EmbedSpec, mesh: Mesh, batch_size: int
) -> Features:
    """Features of all images of a folder, in its order.

    Args:
        images: to embed.
        view: the encoder, and what it sees.
        mesh: devices that share each batch.
        batch_size: images at once, or fewer where there are fewer.

    Raises:
        ValueError: where an image cannot be decoded, or a batch cannot be shared.
    """
    devices = mesh.devices.size
    if batch_size < 1 or batch_size % devices:
        raise ValueError(
            f"--batch_size={batch_size} must be a multiple of the {devices} devices; "
            "use e.g. 256"
        )
    batch_size = min(batch_size, -(-len(images) // devices) * devices)
    module, augment = view.backbone.module, view.augment
    variables = replicate(view.backbone.variables, mesh)
    sharding = batch_sharding(mesh)

    @jax.jit
    def features(variables: Any, pixels: jax.Array) -> Any:
        return module.apply(variables, prepare_eval(pixels, augment), train=False)

    found = extract(
        lambda pixels: {"": features(variables, place(pixels, sharding))},
        Squares(images, view.resize, view.crop),
        batch_size=batch_size,
    )
    return found[""]


def writer(out: Path) -> Callable[[Path, FolderSource, Features], None]:
    """What writes a file of that name.

    Raises:
        ValueError: where nothing does.
    """
    writers = {".npz": write_npz, ".parquet": write_parquet}
    if out.suffix not in writers:
        raise ValueError(f"--out={out.name} must end with {' or '.join(writers)}")
    return writers[out.suffix]


def write_npz(path: Path, images: FolderSource, features: Features) -> None:
    """Writes arrays that numpy reads without unpickling."""
    arrays = {"files": np.array(images.files), "features": features.features}
    if images.labels:
        arrays["labels"] = features.labels
        arrays["class_names"] = np.array(images.class_names)
    np.savez(path, allow_pickle=False, **arrays)


def write_parquet(path: Path, images: FolderSource, features: Features) -> None:
    """Writes a table with a row for each image."""
    rows, size = features.features.shape
    flat = pa.array(features.features.reshape(rows * size))
    columns: dict[str, Any] = {
        "file": images.files,
        "features": pa.FixedSizeListArray.from_arrays(flat, size),
    }
    if images.labels:
        columns["label"] = features.labels
        columns["class_name"] = [images.class_names[i] for i in features.labels]
    parquet.write_table(pa.table(columns), path)


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be numbers with commas between them, e.g. 0.5,0.5,0.5"
        ) from error


def _parser() -> _cli.Parser:
    parser = _cli.Parser("embed", __doc__)
    parser.add_argument(
        "folder", metavar="DIR", type=_cli.path, help="folder of images"
    )
    encoder = parser.add_mutually_exclusive_group(required=True)
    parser.add_workdir("folder of a run", required=False, to=encoder)
    encoder.add_argument(
        "--weights",
        metavar="FILE",
        type=_cli.path,
        help="a safetensors file of a ResNet, or its folder for transformers",
    )
    parser.add_out("what to write: .npz or .parquet")
    parser.add_overwrite()
    parser.add_argument("--resize", metavar="PIXELS", type=int, help="short side")
    parser.add_argument(
        "--crop", metavar="PIXELS", type=int, help="side of the center square"
    )
    parser.add_argument(
        "--mean",
        metavar="R,G,B",
        type=_numbers,
        help="of red, green, blue in [0, 1]; default ImageNet's",
    )
    parser.add_argument(
        "--std", metavar="R,G,B", type=_numbers, help="as --mean; default ImageNet's"
    )
    parser.add_argument(
        "--batch_size",
        metavar="N",
        type=int,
        default=256,
        help="images at once; default 256",
    )
    parser.add_seed()
    return parser


if __name__ == "__main__":
    _cli.run(main)
