"""The one table from a configuration's `data.source` to the code that reads it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from logo_jax.data import datasets, splits
from logo_jax.data.sources import photographs
from logo_jax.data.sources.base import ImageSource, Subset
from logo_jax.data.sources.folder import load_folder
from logo_jax.data.sources.npz import load_npz


class ExperimentData(NamedTuple):
    """The images of an experiment.

    Attributes:
        train: to learn from; labels, if there are any, are not looked at.
        bank: labeled training images, to evaluate with; None without labels.
        queries: labeled test images; None without labels or a test set.
    """

    train: ImageSource
    bank: ImageSource | None = None
    queries: ImageSource | None = None


@dataclasses.dataclass(frozen=True)
class DataLocation:
    """Which images are read.

    Attributes:
        source: "tfds", "folder", "npz" or "photographs".
        name: for tfds, the data set.
        path: for folder, the folder; for npz, that of `train.npz` and `test.npz`.
        data_dir: for tfds, where data sets are prepared; TFDS's default if empty.
        classes: for folder, a file that lists the sub-folders to keep; all if empty.
        val_size: number of training images, always the same ones, that are not trained
            on and replace the test set, so that settings can be chosen on them.
    """

    source: str
    name: str = ""
    path: str = ""
    data_dir: str = ""
    classes: str = ""
    val_size: int = 0

    @property
    def title(self) -> str:
        """Name of the images: the TFDS name or path, or else the source.

        >>> DataLocation("photographs", name="cifar10").title
        'photographs'
        """
        titles = {"tfds": self.name, "folder": self.path, "npz": self.path}
        return titles.get(self.source, self.source)


def load_images(location: DataLocation) -> ExperimentData:
    """The images of a location, not decoded.

    Raises:
        ValueError: if the source is unknown, lacks its name or path, or holds data
            that are not as its loader describes.
        FileNotFoundError: if the data are not there.
    """
    source, classes = location.source, location.classes
    if source not in _LOADERS:
        raise ValueError(f"source={source!r} must be one of {', '.join(_LOADERS)}")
    if classes and source != "folder":
        raise ValueError(
            f"config.data.classes={classes!r} needs source='folder', not {source!r}; "
            "a TFDS data set is reduced when it is prepared: "
            "python -m logo_jax.prepare imagenet100 --classes=FILE"
        )
    data = _LOADERS[source](location)
    return _without_test_set(data, location.val_size) if location.val_size else data


def _without_test_set(data: ExperimentData, val_size: int) -> ExperimentData:
    """A part of the training images in the test set's place."""
    images = data.train
    labeled = data.bank is images or (data.bank is None and images.num_classes)
    if not labeled:
        raise ValueError(
            f"config.data.val_size={val_size} needs labeled images that are learned "
            f"from, and those of {images.origin} are not; set it to 0"
        )
    if val_size >= len(images):
        raise ValueError(
            f"config.data.val_size={val_size} must be below the {len(images)} training "
            f"images of {images.origin}"
        )
    rows = splits.ValidationSplit(val_size).draw(
        {"train": np.empty(len(images)), "test": np.empty(0)}, np.random.default_rng(0)
    )
    kept = Subset(images, rows["train"].indices, f"{images.origin} but those held out")
    queries = Subset(images, rows["val"].indices, f"{images.origin}, held out")
    return ExperimentData(kept, kept, queries)


def prepare_missing(location: DataLocation, *, quiet: bool = False) -> None:
    """Downloads and prepares a missing TFDS data set, if that needs nothing else.

    Args:
        location: as for `load_images`, which reports what is still missing.
        quiet: whether to print nothing.

    Raises:
        FileNotFoundError: if a file is missing and its host does not answer.
        ValueError: if a file is not the published one.
        OSError: if a file cannot be read, downloaded or written.
    """
    if location.source == "tfds" and location.name:
        # TFDS takes most of a second to import; other sources do not need it
        from logo_jax.data.builders import prepare

        prepare.prepare_missing(location.name, location.data_dir, quiet=quiet)


class Split(NamedTuple):
    """Labeled images, and which rows of them a classifier is trained and tested on.

    Attributes:
        images: by split.
        draw: from the labels of each split to the rows of "train", "val" and "test".
        metric: the data set's, "top1" where it is none of the paper's.
    """

    images: Mapping[str, ImageSource]
    draw: Callable[[Mapping[str, np.ndarray]], Mapping[str, splits.SplitRows]]
    metric: str


def load_split(location: DataLocation) -> Split:
    """The split that the paper transfers to, or else a fifth of the bank held out.

    With `val_size`, these images are tested on, and the test set is not read.

    Raises:
        ValueError: as `load_images`, and if there are no labels.
        FileNotFoundError: if the data are not there.
    """
    is_tfds = location.source == "tfds"
    entry = datasets.find(location.name) if is_tfds else None
    if entry and entry.split and not location.val_size:
        from logo_jax.data.sources import tfds as tfds_source

        folder = tfds_source.directory(location.data_dir)
        builder = tfds_source.prepared(entry.tfds, folder)
        images = {
            name: tfds_source.TfdsSource(builder, name) for name in entry.split.splits
        }
        return Split(images, functools.partial(datasets.partition, entry), entry.metric)
    data = load_images(location)
    if data.bank is None or data.queries is None:
        raise ValueError(
            f"{data.train.origin} has no labeled training and test set; a classifier "
            "needs both: give another --dataset"
        )
    held_out = splits.ValidationSplit(round(len(data.bank) / 5))
    draw = functools.partial(held_out.draw, rng=np.random.default_rng(0))
    metric = entry.metric if entry else "top1"
    return Split({"train": data.bank, "test": data.queries}, draw, metric)


def locate_dataset(dataset: str) -> dict[str, str]:
    """Fields of a config's data group for a folder, or else for a TFDS name."""
    path = Path(dataset).expanduser()
    if not path.is_dir():
        return {"source": "tfds", "name": dataset}
    source = "npz" if (path / "train.npz").is_file() else "folder"
    return {"source": source, "path": dataset}


def _tfds(location: DataLocation) -> ExperimentData:
    # TFDS takes most of a second to import; other sources do not need it
    from logo_jax.data.sources import tfds as tfds_source

    name = location.name
    if not name:
        raise ValueError("source='tfds' needs the data set's name, such as 'cifar10'")
    folder = tfds_source.directory(location.data_dir)
    if entry := datasets.find(name):
        builder = tfds_source.prepared(entry.tfds, folder)
        return _of_splits(builder, entry.pretrain, entry.train, entry.test)
    builder = tfds_source.prepared(name, folder)
    tests = [split for split in ("test", "validation") if split in builder.info.splits]
    return _of_splits(builder, "train", "train", next(iter(tests), ""))


def _of_splits(builder, pretrain: str, train: str, test: str) -> ExperimentData:
    from logo_jax.data.sources.tfds import TfdsSource

    images = TfdsSource(builder, pretrain)
    bank = images if train == pretrain else train and TfdsSource(builder, train)
    if not (bank and test and bank.num_classes):
        return ExperimentData(images)
    return ExperimentData(images, bank, TfdsSource(builder, test))


def _folder(location: DataLocation) -> ExperimentData:
    if not location.path:
        raise ValueError("source='folder' needs path, the folder that holds images")
    train, test = load_folder(location.path, classes=location.classes)
    return ExperimentData(train, train, test) if test else ExperimentData(train)


def _npz(location: DataLocation) -> ExperimentData:
    path = location.path
    if not path:
        raise ValueError("source='npz' needs path, the folder that holds train.npz")
    train = load_npz(path, "train")
    if train.labels is None:
        return ExperimentData(train)
    test = load_npz(path, "test")
    if test.labels is None or test.labels.shape[1:] != train.labels.shape[1:]:
        found = "none" if test.labels is None else list(test.labels.shape)
        raise ValueError(
            f"labels of {test.origin} are {found}, of {train.origin} "
            f"{list(train.labels.shape)}; give both the same form, or the training set "
            "none"
        )
    return ExperimentData(train, train, test)


def _photographs(location: DataLocation) -> ExperimentData:
    del location
    train, test = (
        photographs.load_photographs("train"),
        photographs.load_photographs("test"),
    )
    return ExperimentData(train, train, test)


_LOADERS: dict[str, Callable[[DataLocation], ExperimentData]] = {
    "tfds": _tfds,
    "folder": _folder,
    "npz": _npz,
    "photographs": _photographs,
}
