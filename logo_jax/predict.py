"""Classifies images by a classifier that `evaluate --protocol=finetune` has written.

    python -m logo_jax.predict DIR --classifier=FOLDER --out=classes.csv
    python -m logo_jax.predict photo.jpg --classifier=FOLDER --top=3

DIR is a folder of images with any sub-folders, a list of images such as labels.csv, or
one image; several folders or lists are divided by commas. Images are resized and
cropped to their centers as in the evaluation. A row has the file (in a folder: relative
to DIR), its most probable class and the probability; with --top=K also class_2,
probability_2 and so on. A file .csv or .parquet is written; without --out, CSV is
printed. Images that cannot be decoded are named on stderr and left out. Bytes of names
that are not UTF-8 are escaped.

Exit codes: 0 if the images are classified; 2 for bad input, which is reported in one
line on stderr.
"""

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from logo_jax import _cli
from logo_jax.data.load import load_unsplit
from logo_jax.data.sources.base import ImageSource
from logo_jax.data.sources.names import as_utf8
from logo_jax.data.sources.tables import is_table
from logo_jax.experiment.image_classifier import (
    ImageClassifier,
    load_image_classifier,
)
from logo_jax.experiment.image_encoder import image_source
from logo_jax.training import atomic

Columns = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    _cli.keep_compiled_code()
    with _cli.input_errors():
        write = options.out and writer(options.out)
        if write:
            _cli.require_new(options.out, options.overwrite)
        sizes = _cli.given(options, ("resize", "crop"))
        classifier = load_image_classifier(options.classifier, **sizes)
        _require_classes(classifier, options.top)
        images, files = load(options.images, classifier)
        damaged: dict[int, str] = {}
        found = classifier.probabilities(
            images, batch_size=options.batch_size, damaged=damaged
        )
        for i, reason in damaged.items():
            print(f"left out {images.name(i)}: {reason}", file=sys.stderr)
        kept = [as_utf8(file) for i, file in enumerate(files) if i not in damaged]
        columns = table(kept, found, classifier.class_names, options.top)
        if write:
            with atomic.replace(options.out) as partial:
                write(partial, columns)
        else:
            write_csv(sys.stdout, columns)
    encoder = classifier.encoder
    size = f"resized to {encoder.resize} px and cropped to {encoder.crop} px"
    lines = [
        f"images of {as_utf8(images.origin)}: {len(kept):,} classified, "
        f"{len(damaged):,} left out; {size if encoder.resize else 'as they are'}; "
        f"classifier: {encoder.source}"
    ]
    lines += [f"wrote {options.out}"] if options.out else []
    print(*lines, sep="\n", file=sys.stdout if options.out else sys.stderr)


def load(path: Path, classifier: ImageClassifier) -> tuple[ImageSource, Sequence[str]]:
    """Returns the images of a folder, a list or a file, and the names of the files.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        ValueError: if there are no images, or a list cannot be read.
    """
    decoding = classifier.encoder.decoding
    if path.is_file() and not is_table(path):
        return image_source(str(path), decoding), [str(path)]
    images = load_unsplit(str(path), decoding=decoding)
    return images, images.files


def table(
    files: Sequence[str], probabilities: np.ndarray, names: Sequence[str], top: int
) -> Columns:
    """Returns the columns of the result, by name.

    Among equal probabilities, the class with the smaller number is first.

    Args:
        files: names of the files.
        probabilities: probabilities of the classes [n, c].
        names: names of the classes.
        top: number of classes of each file.

    >>> table(["a"], np.array([[0.25, 0.75]], np.float32), ["cat", "dog"], 1)
    {'file': ['a'], 'class': ['dog'], 'probability': array([0.75], dtype=float32)}
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    columns: Columns = {"file": list(files)}
    for rank in range(top):
        end = f"_{rank + 1}" if rank else ""
        chosen = order[:, rank]
        columns[f"class{end}"] = [as_utf8(names[int(i)]) for i in chosen]
        columns[f"probability{end}"] = probabilities[np.arange(len(chosen)), chosen]
    return columns


def writer(out: Path) -> Callable[[Path, Columns], None]:
    """Returns the function that writes a file with the suffix of `out`.

    Raises:
        ValueError: if the suffix is neither .csv nor .parquet.
    """
    writers = {".csv": _write_csv_file, ".parquet": _write_parquet}
    if out.suffix not in writers:
        raise ValueError(f"--out={out.name} must end with {' or '.join(writers)}")
    return writers[out.suffix]


def write_csv(file: TextIO, columns: Columns) -> None:
    """Writes a header and a row for each image; probabilities have six decimals."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        rows.writerow(x if isinstance(x, str) else f"{x:.6f}" for x in row)


def _write_csv_file(path: Path, columns: Columns) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, columns)


def _write_parquet(path: Path, columns: Columns) -> None:
    parquet.write_table(pa.table(columns), path)


def _require_classes(classifier: ImageClassifier, top: int) -> None:
    count = len(classifier.class_names)
    if top > count:
        raise ValueError(
            f"--top={top} exceeds the {count} classes; use {count} or less"
        )


def _parser() -> _cli.Parser:
    parser = _cli.Parser("predict", __doc__)
    parser.add_argument(
        "images",
        metavar="DIR",
        type=_cli.path,
        help="folder or list of images, or one image",
    )
    parser.add_argument(
        "--classifier",
        metavar="FOLDER",
        type=_cli.path,
        required=True,
        help="folder of a classifier, as evaluate --protocol=finetune writes it",
    )
    parser.add_out(
        "file to write, .csv or .parquet; default: print CSV", required=False
    )
    parser.add_overwrite()
    parser.add_argument(
        "--top",
        metavar="K",
        type=_cli.at_least(1),
        default=1,
        help="number of classes of each image, the most probable first; default 1",
    )
    parser.add_argument(
        "--resize",
        metavar="PIXELS",
        type=_cli.at_least(0),
        help="short side of resized images; default: that of the evaluation",
    )
    parser.add_argument(
        "--crop",
        metavar="PIXELS",
        type=_cli.at_least(0),
        help="side of the center crop; default: that of the evaluation",
    )
    parser.add_argument(
        "--batch_size",
        metavar="N",
        type=_cli.at_least(1),
        default=256,
        help="images per batch; default 256",
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
