"""Computes features of the images of a folder, with the encoder of a run or file.

    python -m logo_jax.embed DIR --workdir=WORKDIR --out=features.npz
    python -m logo_jax.embed DIR --weights=resnet50.safetensors --out=features.parquet

All images in DIR and its sub-folders are resized and cropped to their centers as by
`evaluate`: to the sizes of the run's config.monitor, or to 256 and 224 px for weights
from a file. OUT contains, in the order of the paths, `files` (relative to DIR) and
`features` (float32). If every image is in a sub-folder, the top-level sub-folders are
classes, and OUT also contains `labels`, and `class_names` in the order of the labels. A
.parquet file has the columns file, features, label and class_name. If an image cannot
be decoded, the error names it and nothing is written.

Exit codes: 0 if the file is written; 2 for bad input, which is reported in one line on
stderr.
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

RESIZE, CROP = 256, 224  # as usual for published ImageNet weights


@dataclasses.dataclass(frozen=True)
class EmbedSpec:
    """Encoder, and how images are resized, cropped and normalized for it.

    Attributes:
        backbone: the backbone with its weights.
        augment: its `mean` and `std` normalize the images.
        resize: short side of the resized image, in pixels.
        crop: side of the center crop, in pixels.

    Raises:
        ValueError: if the crop is larger than the resized image, or empty.
    """

    backbone: Backbone
    augment: AugmentSpec
    resize: int
    crop: int

    def __post_init__(self):
        if not 0 < self.crop <= self.resize:
            raise ValueError(
                f"--crop={self.crop} must be between 1 and --resize={self.resize}, the "
                "short side of resized images; give both, e.g. 224 and 256"
            )


@dataclasses.dataclass(frozen=True)
class Squares:
    """Center crops of all images of a folder, as `LabeledImages`.

    An image that cannot be decoded is an error.

    Attributes:
        source: the images.
        resize: short side of the resized image, in pixels.
        crop: side of the center crop, in pixels.
    """

    source: FolderSource
    resize: int
    crop: int

    def __len__(self) -> int:
        return len(self.source)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images, uint8 [b, crop, crop, 3], and labels, int32 [b].

        Raises:
            ValueError: if an image cannot be decoded.
        """
        read = functools.partial(
            read_eval_crops, self.source, resize=self.resize, crop=self.crop
        )
        for ids, part in in_chunks(read, np.arange(len(self)), threads=0):
            for i in ids[part.failed]:
                raise ValueError(
                    f"{self.source.name(i)} cannot be decoded "
                    f"({decode_failure(self.source, i)}); repair or remove it"
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
    classes = f"{images.num_classes} classes" if images.labels else "no classes"
    print(
        f"{len(images):,} images of {images.origin}, {classes}, resized to "
        f"{view.resize} px and cropped to {view.crop} px, mean {view.augment.mean}, "
        f"std {view.augment.std}: {features.features.shape[1]} features each"
    )
    print(f"wrote {options.out}")


def read_view(options: argparse.Namespace) -> EmbedSpec:
    """Reads the encoder that the command line names, and the image sizes for it.

    Raises:
        FileNotFoundError: if the run or the file does not exist.
        ValueError: if the encoder cannot be read, or flags contradict each other.
    """
    sizes = _cli.given(options, ("resize", "crop"))
    if options.workdir is not None:
        _require_absent(options, "--workdir", ("mean", "std"))
        return _of_run(options.workdir, options.seed, sizes)
    _require_absent(options, "--weights", ("seed",))
    config = base.get_config("simsiam")
    base_imagenet.set_images(config)
    normalization = _cli.given(options, ("mean", "std"))
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


def _require_absent(
    options: argparse.Namespace, given: str, names: Sequence[str]
) -> None:
    for name in _cli.given(options, names):
        raise ValueError(f"--{name} is not read with {given}; remove --{name}")


def embed(
    images: FolderSource, view: EmbedSpec, mesh: Mesh, batch_size: int
) -> Features:
    """Computes the features of all images of a folder, in the order of the folder.

    Args:
        images: the images to embed.
        view: the encoder, and the sizes and normalization of its images.
        mesh: the devices; each batch is split over them.
        batch_size: images per batch over all devices; reduced for a small folder.

    Raises:
        ValueError: if an image cannot be decoded, or the batch size is not a multiple
            of the number of devices.
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
    """Returns the function that writes a file with the suffix of `out`.

    Raises:
        ValueError: if the suffix is neither .npz nor .parquet.
    """
    writers = {".npz": write_npz, ".parquet": write_parquet}
    if out.suffix not in writers:
        raise ValueError(f"--out={out.name} must end with {' or '.join(writers)}")
    return writers[out.suffix]


def write_npz(path: Path, images: FolderSource, features: Features) -> None:
    """Writes an .npz file with files, features and, if known, labels and class_names.

    NumPy reads the file without unpickling.
    """
    arrays = {"files": np.array(images.files), "features": features.features}
    if images.labels:
        arrays["labels"] = features.labels
        arrays["class_names"] = np.array(images.class_names)
    np.savez(path, allow_pickle=False, **arrays)


def write_parquet(path: Path, images: FolderSource, features: Features) -> None:
    """Writes a Parquet table with one row per image.

    The columns are file, features and, if the images are labeled, label and class_name.
    """
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
    """Parses numbers separated by commas."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be numbers separated by commas, e.g. 0.5,0.5,0.5"
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
        help="safetensors file of a ResNet, or its folder in transformers' format",
    )
    parser.add_out("file to write, .npz or .parquet")
    parser.add_overwrite()
    parser.add_argument(
        "--resize",
        metavar="PIXELS",
        type=int,
        help="short side of resized images; default: the run's, or 256 for --weights",
    )
    parser.add_argument(
        "--crop",
        metavar="PIXELS",
        type=int,
        help="side of the center crop; default: the run's, or 224 for --weights",
    )
    parser.add_argument(
        "--mean",
        metavar="R,G,B",
        type=_numbers,
        help="mean of the channels, for pixels in [0, 1]; default: that of ImageNet",
    )
    parser.add_argument(
        "--std",
        metavar="R,G,B",
        type=_numbers,
        help="standard deviation of the channels; default: that of ImageNet",
    )
    parser.add_argument(
        "--batch_size",
        metavar="N",
        type=int,
        default=256,
        help="images per batch; default 256",
    )
    parser.add_seed()
    return parser


if __name__ == "__main__":
    _cli.run(main)
