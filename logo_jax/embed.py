"""Computes features of the images of a folder, with the encoder of a run or file.

    python -m logo_jax.embed DIR --workdir=WORKDIR --out=features.npz
    python -m logo_jax.embed DIR --weights=resnet50.safetensors --out=features.parquet
    python -m logo_jax.embed DIR --workdir=WORKDIR --neighbors=page.html
    python -m logo_jax.embed DIR --workdir=WORKDIR --index=photos.index
    python -m logo_jax.embed --query IMAGE --index=photos.index --k=10

All images in DIR and its sub-folders are resized and cropped to their centers as by
`evaluate`: to the sizes of the run's config.monitor, or to 256 and 224 px for weights
from a file. OUT contains, in the order of the paths, `files` (relative to DIR) and
`features` (float32). If every image is in a sub-folder, the top-level sub-folders are
classes, and OUT also contains `labels`, and `class_names` in the order of the labels.
If all of them are splits (train, val, test), the classes are the sub-folders of these.
DIR may also be a list of images, such as labels.csv, or several of them with commas.
A .parquet file has the columns file, features, label and class_name; bytes of names
that are not UTF-8 are escaped in it. Images that cannot be decoded are named on stderr
and left out; `files` has the others.

--neighbors writes one HTML file, in which a click on an image shows the --k images
whose features have the largest cosine similarity, among all images of DIR. Groups of
near-duplicates are shown first: images that are connected by pairs with a similarity of
at least --duplicates. At most --thumbnails images have a picture in the page.

--index writes a file that --query searches exactly. It contains the features, the names
and the place of the encoder, by which a query is encoded; an encoder with other weights
is refused. If the run or the file has moved, --workdir or --weights give the new place.
The index is written and searched a part at a time, so it may be larger than the memory.

Exit codes: 0 if the file is written or the query is answered; 2 for bad input, which is
reported in one line on stderr.
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
from logo_jax.data.sources.base import NO_LABEL
from logo_jax.data.sources.folder import FolderSource
from logo_jax.data.sources.huggingface import HuggingFaceSource
from logo_jax.data.sources.names import as_utf8
from logo_jax.evaluation.features import Features
from logo_jax.evaluation.nearest_neighbors import make_bank, search
from logo_jax.experiment import image_index
from logo_jax.experiment.image_encoder import ImageEncoder, load_image_encoder
from logo_jax.experiment.pretrained import ENCODERS
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import atomic
from logo_jax.visualization import neighbor_page

Images: TypeAlias = FolderSource | HuggingFaceSource
# flags that are arguments of `load_image_encoder`
CHOICES = ("resize", "crop", "mean", "std", "seed", "step", "encoder")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    _cli.keep_compiled_code()
    with _cli.input_errors():
        lines = _answers(options) if options.query else _embed(options)
    print(*lines, sep="\n")


def _embed(options: argparse.Namespace) -> list[str]:
    """Writes the files that the options name, and returns what is to be printed."""
    write = _checked(options)
    source = options.workdir or options.weights
    choices = _cli.given(options, CHOICES)
    encoder = load_image_encoder(source, **choices)
    images = load_unsplit(str(options.folder), decoding=encoder.decoding)
    damaged: dict[int, str] = {}
    parts = encoder.feature_batches(
        images, batch_size=options.batch_size, damaged=damaged
    )
    whole = None
    if options.out or options.neighbors:  # an index alone needs no features in memory
        whole = Features(*map(np.concatenate, zip(*parts, strict=True)))
        parts = iter([whole])
    if options.index:
        with atomic.replace(options.index) as partial:
            entries = image_index.entries(images, parts, damaged)
            image_index.write(partial, encoder, source, choices, images, entries)
    for i, reason in damaged.items():
        print(f"left out {images.name(i)}: {reason}", file=sys.stderr)
    if damaged:
        images = images.take([i for i in range(len(images)) if i not in damaged])
    lines = []
    if write and whole:
        with atomic.replace(options.out) as partial:
            write(partial, images, whole)
    if options.neighbors and whole:
        lines = _write_page(options, images, whole, encoder)
    return [
        *(f"note: {note}" for note in images.notes),
        _summary(images, encoder)
        + (f", {len(damaged):,} damaged ones left out" if damaged else "")
        + (f": {whole.features.shape[1]} features each" if whole else ""),
        *lines,
        *(f"wrote {x}" for x in _outputs(options)),
    ]


def _checked(options: argparse.Namespace) -> Callable[..., None] | None:
    """Checks the options before work is done, and returns the writer of `out`."""
    outputs = _outputs(options)
    if not options.folder:
        raise ValueError(
            "DIR is missing: give a folder or a list of images, or --query"
        )
    if not (options.workdir or options.weights):
        raise ValueError("give the encoder: --workdir=RUN or --weights=FILE")
    if not outputs:
        raise ValueError("give what to write: --out, --neighbors or --index")
    if options.neighbors and options.neighbors.suffix not in (".html", ".htm"):
        raise ValueError(f"--neighbors={options.neighbors} must end with .html")
    for path in outputs:
        _cli.require_new(path, options.overwrite)
    return writer(options.out) if options.out else None


def _outputs(options: argparse.Namespace) -> list[Path]:
    found = (options.out, options.neighbors, options.index)
    return [path for path in found if path]


def _summary(images: Images, encoder: ImageEncoder) -> str:
    classes = f"{images.num_classes} classes" if images.num_classes else "no classes"
    return (
        f"{len(images):,} images of {as_utf8(images.origin)}, {classes}, resized to "
        f"{encoder.resize} px and cropped to {encoder.crop} px, mean "
        f"{encoder.augment.mean}, std {encoder.augment.std}"
    )


def _write_page(
    options: argparse.Namespace,
    images: Images,
    features: Features,
    encoder: ImageEncoder,
) -> list[str]:
    """Writes the page of neighbors, and returns what is to be printed about it."""
    if len(images) < 2:
        raise ValueError(
            f"{images.origin} has {len(images)} image, but neighbors need 2 or more"
        )
    finite = np.isfinite(features.features).all(1)
    if not finite.all():
        raise ValueError(
            f"the features of {images.name(int(np.argmin(finite)))} are not finite; "
            "check that all weights of the encoder are"
        )
    k = min(options.k, len(images) - 1)
    bank = make_bank(features, make_mesh())
    found = neighbor_page.without_itself(*search(features.features, bank, k + 1))
    threshold = options.duplicates or neighbor_page.usual_threshold(found)
    groups = neighbor_page.duplicate_groups(found, threshold)
    rows = sorted(neighbor_page.shown_rows(found, groups, options.thumbnails))
    pictures = neighbor_page.thumbnails(images, rows, encoder.augment)
    shown = dict(zip(rows, pictures, strict=True))
    about = [
        f"{_summary(images, encoder)}.",
        f"Encoder: {encoder.source}.",
        f"A click on an image shows the {k} images whose features have the largest "
        "cosine similarity to those of the image.",
        f"{sum(map(len, groups)):,} images are in {len(groups):,} groups of "
        f"near-duplicates, which are connected by pairs with a similarity of at least "
        f"{threshold:.4f}.",
    ]
    if len(shown) < len(images):
        about.append(
            f"The page shows {len(shown):,} of {len(images):,} images: near-"
            "duplicates, and evenly spaced images with their neighbors. --thumbnails "
            "sets how many. Neighbors were searched among all images."
        )
    names = [(as_utf8(file), _class(images, i)) for i, file in enumerate(images.files)]
    with atomic.replace(options.neighbors) as partial:
        title = f"Neighbors in {as_utf8(images.origin)}"
        text = neighbor_page.neighbor_page(title, about, names, found, groups, shown)
        partial.write_text(text, "utf-8")
    return about[3:]


def _class(images: Images, i: int) -> str:
    label = int(images.labels[i]) if images.num_classes else NO_LABEL
    return as_utf8(images.class_names[label]) if label >= 0 else ""


def _answers(options: argparse.Namespace) -> list[str]:
    """Returns the lines that answer the queries."""
    if not options.index:
        raise ValueError("--query needs --index=FILE, which --index wrote")
    fixed = ("folder", "out", "neighbors", *CHOICES)
    for name in _cli.given(options, fixed):
        flag = "DIR" if name == "folder" else f"--{name}"
        raise ValueError(f"{flag} does not apply to --query; remove it")
    index = image_index.read(options.index, options.workdir or options.weights)
    lines = []
    answers = index.nearest(options.query, options.k)
    for query, found in zip(options.query, answers, strict=True):
        lines.append(
            f"{as_utf8(str(query))}: nearest of {index.features.size:,} images of "
            f"{index.features.about['images']}"
        )
        for i, (cosine, file, kind) in enumerate(found, 1):
            lines.append(f"{i:4} {cosine:.4f} {file}" + (f" ({kind})" if kind else ""))
    return lines


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


def _cosine(text: str) -> float:
    """Parses a cosine similarity in (0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a cosine above 0, and at most 1, e.g. 0.98"
        )
    return value


def _parser() -> _cli.Parser:
    parser = _cli.Parser("embed", __doc__)
    parser.add_argument(
        "folder",
        metavar="DIR",
        type=_cli.path,
        nargs="?",
        help="folder or list of images",
    )
    encoder = parser.add_mutually_exclusive_group()
    parser.add_workdir("folder of a run", required=False, to=encoder)
    encoder.add_argument(
        "--weights",
        metavar="FILE",
        type=_cli.path,
        help="safetensors file of a ResNet or a vision transformer, or the folder of a "
        "ResNet in transformers' format",
    )
    parser.add_out("file of features to write, .npz or .parquet", required=False)
    parser.add_argument(
        "--neighbors",
        metavar="PAGE",
        type=_cli.local_path,
        help="page to write, .html, which shows the nearest neighbors of each image",
    )
    parser.add_argument(
        "--index",
        metavar="FILE",
        type=_cli.local_path,
        help="index to write; with --query, the index to search",
    )
    parser.add_argument(
        "--query",
        metavar="IMAGE",
        type=_cli.local_path,
        nargs="+",
        help="image files whose most similar images are searched in the index",
    )
    parser.add_argument(
        "--k",
        metavar="N",
        type=_cli.at_least(1),
        default=10,
        help="number of neighbors of --neighbors and --query; default 10",
    )
    parser.add_argument(
        "--duplicates",
        metavar="COSINE",
        type=_cosine,
        help="least similarity of near-duplicates in the page; default: as many as are "
        "ten times closer than the usual distance of an image to its last neighbor",
    )
    parser.add_argument(
        "--thumbnails",
        metavar="N",
        type=_cli.at_least(2),
        default=1000,
        help="most images that the page shows, each 3 to 15 kB; default 1000",
    )
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
    parser.add_seed()
    parser.add_checkpoint(ENCODERS)
    return parser


if __name__ == "__main__":
    _cli.run(main)
