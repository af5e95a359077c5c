"""Computes features of the images of a folder, with the encoder of a run or file.

    python -m logo_jax.embed DIR --workdir=WORKDIR --out=features.npz
    python -m logo_jax.embed DIR --weights=resnet50.safetensors --out=features.parquet

All images in DIR and its sub-folders are resized and cropped to their centers as by
`evaluate`: to the sizes of the run's config.monitor, or to 256 and 224 px for weights
from a file. OUT contains, in the order of the paths, `files` (relative to DIR) and
`features` (float32). If every image is in a sub-folder, the top-level sub-folders are
classes, and OUT also contains `labels`, and `class_names` in the order of the labels.
If all of them are splits (train, val, test), the classes are the sub-folders of these.
DIR may also be a list of images, such as labels.csv, or several of them with commas.
A .parquet file has the columns file, features, label and class_name; bytes of names
that are not UTF-8 are escaped in it. If an image cannot be decoded, the error names it
and nothing is written; with --skip_damaged, such images are named and left out.

Exit codes: 0 if the file is written; 2 for bad input, which is reported in one line on
stderr.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from logo_jax import _cli
from logo_jax.data.load import load_unsplit
from logo_jax.data.sources.folder import FolderSource
from logo_jax.data.sources.huggingface import HuggingFaceSource
from logo_jax.data.sources.names import as_utf8
from logo_jax.evaluation.features import Features
from logo_jax.experiment.image_encoder import load_image_encoder
from logo_jax.experiment.pretrained import ENCODERS
from logo_jax.training import atomic

Images: TypeAlias = FolderSource | HuggingFaceSource
# flags that are arguments of `load_image_encoder`
CHOICES = ("resize", "crop", "mean", "std", "seed", "step", "encoder")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    _cli.keep_compiled_code()
    with _cli.input_errors():
        write = writer(options.out)
        _cli.require_new(options.out, options.overwrite)
        encoder = load_image_encoder(
            options.workdir or options.weights,
            **_cli.given(options, CHOICES),
        )
        images = load_unsplit(str(options.folder), decoding=encoder.decoding)
        damaged = {} if options.skip_damaged else None
        features = encoder.features(
            images, batch_size=options.batch_size, damaged=damaged
        )
        for i, reason in (damaged or {}).items():
            print(f"left out {images.name(i)}: {reason}", file=sys.stderr)
        if damaged:
            images = images.take([i for i in range(len(images)) if i not in damaged])
        with atomic.replace(options.out) as partial:
            write(partial, images, features)
    for note in images.notes:
        print(f"note: {note}")
    classes = f"{images.num_classes} classes" if images.num_classes else "no classes"
    print(
        f"{len(images):,} images of {as_utf8(images.origin)}, {classes}, resized to "
        f"{encoder.resize} px and cropped to {encoder.crop} px, mean "
        f"{encoder.augment.mean}, std {encoder.augment.std}: "
        f"{features.features.shape[1]} features each"
    )
    print(f"wrote {options.out}")


def writer(out: Path) -> Callable[[Path, Images, Features], None]:
    """Returns the function that writes a file with the suffix of `out`.

    Raises:
        ValueError: if the suffix is neither .npz nor .parquet.
    """
    writers = {".npz": write_npz, ".parquet": write_parquet}
    if out.suffix not in writers:
        raise ValueError(f"--out={out.name} must end with {' or '.join(writers)}")
    return writers[out.suffix]


def write_npz(path: Path, images: Images, features: Features) -> None:
    """Writes an .npz file with files, features and, if known, labels and class_names.

    NumPy reads the file without unpickling.
    """
    arrays = {"files": np.array(list(images.files)), "features": features.features}
    if images.num_classes:
        arrays["labels"] = features.labels
        arrays["class_names"] = np.array(images.class_names)
    np.savez(path, allow_pickle=False, **arrays)


def write_parquet(path: Path, images: Images, features: Features) -> None:
    """Writes a Parquet table with one row per image.

    The columns are file, features and, if the images are labeled, label and class_name.
    Names are UTF-8, as Parquet requires (`as_utf8`).
    """
    rows, size = features.features.shape
    flat = pa.array(features.features.reshape(rows * size))
    columns: dict[str, Any] = {
        "file": list(map(as_utf8, images.files)),
        "features": pa.FixedSizeListArray.from_arrays(flat, size),
    }
    if images.num_classes:
        columns["label"] = features.labels
        names = list(map(as_utf8, images.class_names))
        columns["class_name"] = [names[i] if i >= 0 else None for i in features.labels]
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
        "folder", metavar="DIR", type=_cli.path, help="folder or list of images"
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
        help="mean of the channels, for pixels in [0, 1]; default: that of ImageNet; N "
        "values: images of N channels of 8 bits",
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
    parser.add_argument(
        "--skip_damaged",
        action="store_true",
        help="leave out images that cannot be decoded, and name them on stderr",
    )
    parser.add_seed()
    parser.add_checkpoint(ENCODERS)
    return parser


if __name__ == "__main__":
    _cli.run(main)
