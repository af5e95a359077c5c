"""Writes one of the paper's data sets for TFDS, to be read without TensorFlow.

    python -m logo_jax.prepare NAME [--data_dir=DIR]
    python -m logo_jax.prepare cifar10 --from_arrays=DIR
    python -m logo_jax.prepare imagenet100 --classes=FILE
    python -m logo_jax.prepare --list

Run again after an interruption, it goes on from the files downloaded whole. Exit codes:
0 prepared, now or before; 2 bad input, told in one line on stderr.
"""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from logo_jax import _cli
from logo_jax.data import datasets
from logo_jax.data.builders import cifar10, downloads, imagenet100
from logo_jax.data.builders.cifar100 import Cifar100
from logo_jax.data.builders.fgvc_aircraft import FgvcAircraft
from logo_jax.data.builders.mit67 import Mit67
from logo_jax.data.builders.stl10 import Stl10
from logo_jax.data.builders.writing import write, write_published
from logo_jax.data.sources import tfds as tfds_source

_DOWNLOADED_BY_US = {
    "cifar10": cifar10.Cifar10,
    "cifar100": Cifar100,
    "stl10": Stl10,
    "mit67": Mit67,
    "aircraft": FgvcAircraft,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    with _cli.input_errors():
        if options.list:
            print(table())
        else:
            print(
                prepare(
                    options.name, options.data_dir, options.from_arrays, options.classes
                )
            )


def prepare(
    name: str, data_dir: str = "", arrays_dir: str = "", classes_file: str = ""
) -> str:
    """Prepares a data set unless it is prepared already; returns what was done.

    Args:
        name: of a data set in the catalogue.
        data_dir: folder of prepared data sets; TFDS's default if empty.
        arrays_dir: cifar10: folder of `train.npz` and `test.npz`, of any number of
            images; if empty, the published archive is read, as elsewhere.
        classes_file: imagenet100: text file of WordNet ids, one a line; if empty, those
            of the paper.

    Raises:
        FileNotFoundError: if there is nothing to prepare it from.
        ValueError: for an unknown name or an option of another data set, without the
            TensorFlow that it needs, if it is not made from the published files, and
            if it is prepared in a format that cannot be read or with other classes.
    """
    dataset = datasets.find(name)
    if dataset is None:
        raise ValueError(f"{name!r} is none of {', '.join(datasets.DATASETS)}")
    _require_own_options(dataset.name, arrays_dir, classes_file)
    folder = tfds_source.directory(data_dir)
    classes: tuple[str, ...] = ()
    if dataset.name == "imagenet100":
        file = Path(classes_file or imagenet100.DEFAULT_CLASSES).expanduser()
        classes = imagenet100.read_classes(file)
    if written := _prepared(dataset, folder, classes):
        return f"{dataset.name} is already prepared in {written}"
    downloads.require_placed(folder, dataset.by_hand, dataset.where)
    print(f"preparing {dataset.name} in {folder}", flush=True)
    if arrays_dir:
        written = cifar10.from_arrays(folder, Path(arrays_dir))
    elif classes:
        written = _write_imagenet(dataset, folder, classes)
    elif builder_class := _DOWNLOADED_BY_US.get(dataset.name):
        written = write_published(builder_class, folder, dataset.examples)
    else:
        written = _write_stock(dataset, folder)
    return f"wrote {dataset.name} to {written}"


def table() -> str:
    """The catalogue as text: name, images, classes and how a data set is had."""
    rows = [("name", "images", "classes", "metric", "how it is had")]
    for dataset in datasets.DATASETS.values():
        images = sum(dataset.examples.values())
        classes = str(dataset.num_classes or "-")
        rows.append(
            (dataset.name, f"{images:,}", classes, dataset.metric or "-", _how(dataset))
        )
    return "\n".join("{:<13}{:>10}{:>9}  {:<15} {}".format(*row) for row in rows)


def _how(dataset: datasets.Dataset) -> str:
    files = "placed by hand" if dataset.by_hand else "downloaded"
    return f"{files}; needs logo_jax[prepare]" if _is_stock(dataset.name) else files


def _is_stock(name: str) -> bool:
    return name not in _DOWNLOADED_BY_US and name != "imagenet100"


def _require_own_options(name: str, arrays_dir: str, classes_file: str) -> None:
    if arrays_dir and name != "cifar10":
        raise ValueError(f"--from_arrays is for cifar10; leave it out for {name}")
    if classes_file and name != "imagenet100":
        raise ValueError(f"--classes is for imagenet100; leave it out for {name}")


def _prepared(
    dataset: datasets.Dataset, folder: Path, classes: tuple[str, ...]
) -> Path | None:
    try:
        builder = builder_from_files(dataset.tfds, data_dir=folder)
    except DatasetNotFoundError:
        return None
    tfds_source.require_readable(builder)
    features: Any = builder.info.features
    if classes and tuple(features["label"].names) != classes:
        raise ValueError(
            f"{builder.data_path} has other classes; give another --data_dir"
        )
    return Path(builder.data_path)


def _write_imagenet(
    dataset: datasets.Dataset, folder: Path, classes: tuple[str, ...]
) -> Path:
    expected = dataset.examples
    if classes != imagenet100.read_classes(imagenet100.DEFAULT_CLASSES):
        expected = {"validation": 50 * len(classes)}  # so many a class
    make_builder = functools.partial(imagenet100.ImageNet100, classes=classes)
    return write(dataset.name, make_builder, folder, expected)


def _write_stock(dataset: datasets.Dataset, folder: Path) -> Path:
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            f"{dataset.name} can be prepared only with TensorFlow, and read without: "
            "pip install 'logo_jax[prepare]'"
        )
    make_builder = functools.partial(tfds.builder, dataset.tfds)
    return write(dataset.name, make_builder, folder, dataset.examples)


def _parser() -> _cli.Parser:
    parser = _cli.Parser("prepare", __doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("name", nargs="?", metavar="NAME", help="see --list")
    chosen.add_argument(
        "--list", action="store_true", help="print the data sets there are"
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        default="",
        help="where to write; default $TFDS_DATA_DIR, else ~/tensorflow_datasets",
    )
    parser.add_argument(
        "--from_arrays",
        metavar="DIR",
        default="",
        help="folder of train.npz and test.npz with uint8 'images' and 'labels'",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        default="",
        help="WordNet ids for imagenet100, one a line; default the paper's",
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
