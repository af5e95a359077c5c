"""Prepares the data sets of the LoGo paper: downloads them, writes them as TFDS data.

Files that cannot be downloaded must be placed by hand. The command is
`python -m logo_jax.prepare`.
"""

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from logo_jax.data import datasets
from logo_jax.data.builders import cifar10, downloads, imagenet100
from logo_jax.data.builders.cifar100 import Cifar100
from logo_jax.data.builders.fgvc_aircraft import FgvcAircraft
from logo_jax.data.builders.mit67 import Mit67
from logo_jax.data.builders.stl10 import Stl10
from logo_jax.data.builders.writing import write, write_published
from logo_jax.data.sources import tfds as tfds_source
from logo_jax.storage.locks import one_at_a_time
from logo_jax.storage.paths import local_path

# data sets that need neither TensorFlow nor files placed by hand
_DOWNLOADABLE = {
    "cifar10": cifar10.Cifar10,
    "cifar100": Cifar100,
    "stl10": Stl10,
    "mit67": Mit67,
    "aircraft": FgvcAircraft,
}


def prepare(
    name: str,
    data_dir: str = "",
    arrays_dir: str = "",
    classes_file: str = "",
    *,
    quiet: bool = False,
) -> str:
    """Prepares a data set unless it is prepared already; returns what was done.

    Processes that prepare the same data set wait for each other.

    Args:
        name: name of a data set in `datasets.DATASETS`.
        data_dir: folder of prepared data sets; TFDS's default if empty.
        arrays_dir: only for cifar10: folder with `train.npz` and `test.npz`, of any
            number of images; if empty, the published archive is downloaded.
        classes_file: only for imagenet100: text file with one WordNet id a line; if
            empty, the classes of the paper.
        quiet: whether to print no line and to show no progress bars.

    Raises:
        FileNotFoundError: if a file is missing that cannot be downloaded.
        ValueError: if the name is unknown, an option belongs to another data set,
            TensorFlow is needed and not installed, the files are not the published
            ones, or the data set is already prepared in a format that cannot be read
            or with other classes.
        OSError: if a file cannot be downloaded, read or written.
    """
    dataset = datasets.find(name)
    if dataset is None:
        raise ValueError(f"{name!r} must be one of {', '.join(datasets.DATASETS)}")
    _require_own_options(dataset.name, arrays_dir, classes_file)
    folder = tfds_source.directory(data_dir)
    classes: tuple[str, ...] = ()
    if dataset.name == "imagenet100":
        file = local_path(classes_file or imagenet100.DEFAULT_CLASSES)
        classes = imagenet100.read_classes(file)
    if written := _prepared(dataset, folder, classes):
        return f"{dataset.name} is already prepared in {written}"
    downloads.require_placed(folder, dataset.by_hand, dataset.where)
    if _needs_tensorflow(dataset.name) and not importlib.util.find_spec("tensorflow"):
        raise ValueError(
            f"{dataset.name} can be prepared only with TensorFlow, and read without: "
            "pip install 'logo_jax[prepare]'"
        )
    with one_at_a_time(folder / "downloads" / f"{dataset.name}.lock"):
        if written := _prepared(dataset, folder, classes):
            return f"{dataset.name} was prepared by another process in {written}"
        with _progress(f"preparing {dataset.name} in {folder}", quiet):
            if arrays_dir:
                written = cifar10.from_arrays(folder, Path(arrays_dir))
            else:
                written = _write(dataset, folder, classes)
    return f"wrote {dataset.name} to {written}"


def prepare_missing(name: str, data_dir: str = "", *, quiet: bool = False) -> None:
    """Downloads and prepares a data set if it is missing and nothing else is needed.

    Does nothing for data sets that need TensorFlow or files placed by hand, and for
    those that are not the paper's.

    Args:
        name: TFDS name of the data set.
        data_dir: folder of prepared data sets; TFDS's default if empty.
        quiet: whether to print no line and to show no progress bars.

    Raises:
        FileNotFoundError: if a file is missing and its host does not answer.
        ValueError: if the files are not the published ones, or the data set is already
            prepared in a format that cannot be read.
        OSError: if a file cannot be downloaded, read or written.
    """
    dataset = datasets.find(name)
    if dataset is None or dataset.name not in _DOWNLOADABLE:
        return
    folder = tfds_source.directory(data_dir)
    if not _prepared(dataset, folder, ()):
        # an unreachable host is reported before anything is printed
        builder_class = _DOWNLOADABLE[dataset.name]
        downloads.require_files(folder, builder_class, timeout_s=5.0)
        prepare(dataset.name, data_dir, quiet=quiet)


def table() -> str:
    """Returns a text table of the data sets, with what preparing each one needs."""
    rows = [("name", "images", "classes", "metric", "files")]
    for dataset in datasets.DATASETS.values():
        images = sum(dataset.examples.values())
        classes = str(dataset.num_classes or "-")
        files = "placed by hand" if dataset.by_hand else "downloaded"
        if _needs_tensorflow(dataset.name):
            files += "; needs logo_jax[prepare]"
        rows.append(
            (dataset.name, f"{images:,}", classes, dataset.metric or "-", files)
        )
    return "\n".join("{:<13}{:>10}{:>9}  {:<15} {}".format(*row) for row in rows)


@contextlib.contextmanager
def _progress(title: str, quiet: bool) -> Iterator[None]:
    """Context manager that prints `title`, and hides TFDS's bars unless on a terminal.

    If `quiet`, nothing is printed and no progress bars are shown.
    """
    if not quiet:
        print(title, flush=True)
    tfds.display_progress_bar(not quiet and sys.stderr.isatty())
    try:
        yield
    finally:
        tfds.display_progress_bar(True)


def _needs_tensorflow(name: str) -> bool:
    return name not in _DOWNLOADABLE and name != "imagenet100"


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
            f"{builder.data_path} was prepared with other classes than those requested "
            "by --classes (default: the paper's); give another --data_dir"
        )
    return Path(builder.data_path)


def _write(dataset: datasets.Dataset, folder: Path, classes: tuple[str, ...]) -> Path:
    """Writes a data set from its published files."""
    if builder_class := _DOWNLOADABLE.get(dataset.name):
        return write_published(builder_class, folder, dataset.examples)
    expected = dataset.examples
    make_builder = functools.partial(tfds.builder, dataset.tfds)
    if classes:
        make_builder = functools.partial(imagenet100.ImageNet100, classes=classes)
        if classes != imagenet100.read_classes(imagenet100.DEFAULT_CLASSES):
            expected = {"validation": 50 * len(classes)}  # 50 images a class
    return write(dataset.name, make_builder, folder, expected)
