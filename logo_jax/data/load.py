"""Loads the image sources that a configuration's `data` group selects."""

import dataclasses
import functools
import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from logo_jax.data import datasets, few_labels, readers, splits
from logo_jax.data.sources import photographs
from logo_jax.data.sources.base import (
    DEFAULT_DECODING,
    NO_LABEL,
    ArraySource,
    Decoding,
    ImageSource,
    Subset,
)
from logo_jax.data.sources.canvases import is_written, load_canvases
from logo_jax.data.sources.columns import parse_columns
from logo_jax.data.sources.folder import (
    HOLD_OUT,
    FolderSource,
    FolderSplits,
    existing_folder,
    find_splits,
    load_folder,
    load_unsplit_folder,
)
from logo_jax.data.sources.huggingface import (
    HuggingFaceSource,
    is_saved,
    load_huggingface,
    load_unsplit_huggingface,
)
from logo_jax.data.sources.layouts import load_layout
from logo_jax.data.sources.lists import load_lists, load_unsplit_lists
from logo_jax.data.sources.npz import load_npz_splits
from logo_jax.data.sources.parts import choose_splits, join_folders
from logo_jax.data.sources.scan import files_with_suffix
from logo_jax.data.sources.tables import is_table
from logo_jax.storage import copies
from logo_jax.storage.paths import as_path, in_bucket, parse_path, parse_paths

LAYOUTS = ("auto", "folders")
# fields about the files of data.path, which other images do not have, with the sources
# that read them
_READ_BY = {
    "list": ("folder",),
    "columns": ("folder", "huggingface"),
    "classes": ("folder",),
    "label_pattern": ("folder",),
}
OF_PATH = tuple(_READ_BY)
_HINT = (
    "; to select classes of ImageNet, run python -m logo_jax.prepare imagenet100 "
    "--classes=FILE"
)


class ExperimentData(NamedTuple):
    """The images of an experiment.

    Attributes:
        train: training images; any labels are not used in pretraining.
        bank: labeled training images for evaluation; None if there are no labels.
        queries: labeled test images; None if there are no labels or no test set.
        remark: with queries, what is not used; without, why there are none and what
            would give some.
        few: if an evaluation uses a part of the labels, its labeled images as a JSON
            object (`few_labels.described`); they are both `train` and `bank`.
    """

    train: ImageSource
    bank: ImageSource | None = None
    queries: ImageSource | None = None
    remark: str = ""
    few: Mapping[str, Any] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how the images were found and read."""
        parts = (self.train, self.bank, self.queries)
        notes = [note for part in parts for note in getattr(part, "notes", ())]
        return tuple(dict.fromkeys(notes))

    @property
    def why_no_queries(self) -> str:
        """Why there are no queries, and what would give some."""
        if self.train.num_classes:
            default = f"{self.train.origin} has no labeled test set; {HOLD_OUT}"
        else:
            default = f"{self.train.origin} has no labels"
        return self.remark or default


@dataclasses.dataclass(frozen=True)
class DataLocation:
    """Location of the images of an experiment.

    Attributes:
        source: "tfds", "folder", "npz", "huggingface", "canvases", "photographs", or
            "arrays" for images that the caller of `logo_jax.pretrain` has in memory.
        name: for "tfds", the name of the data set; for "arrays", a description of the
            images with a checksum.
        path: for "folder", the folder, or several divided by commas; for "npz", the
            folder of `train.npz` and `val.npz` or `test.npz`, or a single file; for
            "huggingface", the folder of a saved data set; for "canvases", the folder
            that `prepare --canvas` wrote.
        data_dir: for "tfds", the folder of prepared data sets; TFDS's default if empty.
        classes: for "folder", a file that lists the sub-folders to keep; all if empty.
        label_pattern: for "folder", a regular expression whose group is the class in
            the path of a file; if empty, the classes are the sub-folders.
        val_size: number of training images to hold out. They replace the test set, so
            that hyperparameters can be chosen on them; they are the same in every run.
        max_pixels: most pixels of an image; see `Decoding`.
        bit_depth: bits that 16-bit gray images use; see `Decoding`.
        list: for "folder", a table of images, or several divided by commas; paths in it
            start from `path`, or from its own folder.
        columns: for lists and "huggingface", names of columns; see `parse_columns`.
        layout: for "folder", "auto" to recognize lists and layouts by their names, or
            "folders" to read sub-folders alone.
        channels: number of channels; see `Decoding`.
        dtype: "auto", "uint8", "uint16" or "float32": type of the values. "auto" is
            that of the files, or 8 bits if there is neither another number of channels
            than 3, nor a value range, nor a reader.
        value_range: the values that become 0 and 1; empty if it is not known.
        reader: import path of a function that reads a file; see `Decoding`.
    """

    source: str
    name: str = ""
    path: str = ""
    data_dir: str = ""
    classes: str = ""
    label_pattern: str = ""
    val_size: int = 0
    max_pixels: int = DEFAULT_DECODING.max_pixels
    bit_depth: int = DEFAULT_DECODING.bit_depth
    list: str = ""
    columns: str = ""
    layout: str = LAYOUTS[0]
    channels: int = DEFAULT_DECODING.channels
    dtype: str = "auto"
    value_range: tuple[float, ...] = ()
    reader: str = ""

    @property
    def decoding(self) -> Decoding:
        """How stored images are decoded."""
        is_changed = self.channels != 3 or self.value_range or self.reader
        dtype = self.dtype if is_changed or self.dtype != "auto" else ""
        return Decoding(
            self.max_pixels, self.bit_depth, self.channels, dtype, self.reader
        )

    @property
    def title(self) -> str:
        """Display name of the images: the TFDS name, the path, or the source.

        >>> DataLocation("photographs", name="cifar10").title
        'photographs'
        """
        names = dict.fromkeys(("tfds", "arrays"), self.name)
        titles = names | {
            "folder": self.list or self.path,
            **dict.fromkeys(("npz", "huggingface", "canvases"), self.path),
        }
        return titles.get(self.source, self.source)

    def on_disk(self) -> Self:
        """Returns the location of the same images on a disk of this machine.

        Images in a bucket are copied: of folders all files, of lists also the folder of
        each list, or else that of `path`.

        Raises:
            FileNotFoundError: if a path in a bucket does not exist.
            ValueError: if a bucket cannot be read, or the disk is too small.
        """
        fields = {name: getattr(self, name) for name in ("path", "list", "classes")}
        copied = {name: on_disk(text) for name, text in fields.items()}
        for file in parse_paths(self.list) if not self.path else ():
            copies.on_disk(file.parent)
        folder = self.data_dir or os.environ.get("TFDS_DATA_DIR", "")
        if self.source == "tfds" and self.name and in_bucket(parse_path(folder)):
            entry = datasets.find(self.name)
            name = re.split("[:/]", entry.tfds if entry else self.name)[0]
            copied["data_dir"] = str(copies.on_disk(parse_path(folder) / name).parent)
        return dataclasses.replace(self, **copied)


def on_disk(paths: str) -> str:
    """Returns the paths in a text, with commas between them, as `copies.on_disk`."""
    if "://" not in paths:
        return paths
    return ",".join(str(copies.on_disk(path)) for path in parse_paths(paths))


def load_images(location: DataLocation) -> ExperimentData:
    """Opens the images of a location without decoding them.

    Raises:
        ValueError: if the source is unknown, its name or path is missing, or the data
            do not have the form that the source requires.
        FileNotFoundError: if the data are missing.
    """
    location = location.on_disk()
    if location.source not in _LOADERS:
        raise ValueError(
            f"source={location.source!r} must be one of {', '.join(_LOADERS)}"
        )
    _require_own_fields(location)
    _check_reader(location)
    data = _LOADERS[location.source](location)
    return _without_test_set(data, location.val_size) if location.val_size else data


def _require_own_fields(location: DataLocation) -> None:
    """Raises an error if a field is set that the source does not read."""
    for field, sources in _READ_BY.items():
        value = getattr(location, field)
        if value and location.source not in sources:
            raise ValueError(
                f"config.data.{field}={value!r} needs source={' or '.join(sources)}, "
                f"not {location.source!r}; set it to '', or use configs/folder.py"
                + (_HINT if (field, location.source) == ("classes", "tfds") else "")
            )


def _check_reader(location: DataLocation) -> None:
    """Raises an error if there is no such reader, or the source reads no files."""
    if not location.reader:
        return
    readers.own_reader(location.reader)
    if location.source in _OF_PIXELS:
        raise ValueError(
            f"{readers.FIELD}={location.reader!r} needs files or encoded images, but "
            f"source={location.source!r} has pixels; set it to ''"
        )


def load_arrays(
    images: Any,
    labels: Any = None,
    val_size: int = 0,
    decoding: Decoding = DEFAULT_DECODING,
) -> tuple[DataLocation, ExperimentData]:
    """Returns images in memory, and a location that identifies them in a config.

    Args:
        images: [n, h, w, c], as `decoding` describes: by default uint8 [n, h, w, 3],
            in [0, 255].
        labels: integers [n] or [n, 1], or [n, classes] for multi-label data; None if
            unknown.
        val_size: number of images to hold out as the test set; the rest are both the
            training images and the bank of kNN.
        decoding: the number of channels and the dtype.

    Raises:
        ValueError: if an array has another form, or if `val_size` does not fit.
    """
    if labels is not None and np.shape(labels)[1:] == (1,):
        labels = np.asarray(labels)[:, 0]
    source = ArraySource(images, labels, origin="the arrays", decoding=decoding)
    data = ExperimentData(source)
    if val_size:
        data = _without_test_set(data, val_size)
    crc = zlib.crc32(np.ascontiguousarray(source.images).data)
    if source.labels is not None:
        crc = zlib.crc32(np.ascontiguousarray(source.labels).data, crc)
    height, width = source.largest
    name = f"{len(source):,} arrays of {height}x{width} px (crc32 {crc:08x})"
    return DataLocation("arrays", name=name, val_size=val_size), data


def _without_test_set(data: ExperimentData, val_size: int) -> ExperimentData:
    """Holds out val_size training images, which replace the test set."""
    images = data.train
    labeled = data.bank is images or (data.bank is None and images.num_classes)
    if isinstance(images, ArraySource) and (known := images.labels) is not None:
        labeled = labeled and not (known.ndim == 1 and np.any(known == NO_LABEL))
    if not labeled:
        raise ValueError(
            f"config.data.val_size={val_size} needs labeled training images, but those "
            f"of {images.origin} are not all labeled; set it to 0"
            + (f" ({data.remark})" if data.remark else "")
        )
    if val_size >= len(images):
        raise ValueError(
            f"config.data.val_size={val_size} must be less than the {len(images)} "
            f"training images of {images.origin}"
        )
    rows = splits.ValidationSplit(val_size).draw(
        {"train": np.empty(len(images)), "test": np.empty(0)}, np.random.default_rng(0)
    )
    kept = Subset(
        images, rows["train"].indices, f"{images.origin} (without those held out)"
    )
    queries = Subset(images, rows["val"].indices, f"{images.origin}, held out")
    unused = f"{data.queries.origin} is not used" if data.queries else ""
    return ExperimentData(kept, kept, queries, unused)


def prepare_missing(location: DataLocation, *, quiet: bool = False) -> None:
    """Downloads and prepares a missing TFDS data set, if that needs nothing else.

    Args:
        location: location of the images; nothing is done unless its source is "tfds".
            `load_images` reports data that are still missing.
        quiet: whether to print nothing.

    Raises:
        FileNotFoundError: if a file is missing and its host does not answer.
        ValueError: if a file is not the published one.
        OSError: if a file cannot be read, downloaded or written.
    """
    own = location.on_disk() == location  # else it is read from a bucket
    if location.source == "tfds" and location.name and own:
        # TFDS takes most of a second to import; other sources do not need it
        from logo_jax.data.builders import prepare

        prepare.prepare_missing(location.name, location.data_dir, quiet=quiet)


def with_few_labels(
    data: ExperimentData, amount: few_labels.Amount, seed: int
) -> ExperimentData:
    """Returns data of whose labeled training images only some of each class are left.

    Args:
        data: labeled images as they are loaded.
        amount: how many images of each class.
        seed: seed of the draw.

    Raises:
        ValueError: if there are no labels or several per image, or if a class has fewer
            images than the amount.
    """
    bank = data.bank
    if bank is None:
        raise ValueError(
            f"--labels={amount} needs labeled training and test images; choose another "
            f"--dataset ({data.why_no_queries})"
        )
    few = few_labels.draw(bank, amount, seed)
    kept = Subset(bank, few.rows, f"{bank.origin} ({len(few.rows):,} labels)")
    found = few_labels.described(few, bank)
    return data._replace(train=kept, bank=kept, few=found)


class Split(NamedTuple):
    """Labeled images and their division into train, validation and test sets.

    Attributes:
        images: image source of each split.
        draw: function from the labels of each split to the rows of "train", "val" and
            "test".
        metric: metric of the data set; "top1" if the data set is not in the paper.
    """

    images: Mapping[str, ImageSource]
    draw: Callable[[Mapping[str, np.ndarray]], Mapping[str, splits.SplitRows]]
    metric: str


def load_split(
    location: DataLocation,
    given: ExperimentData | None = None,
    *,
    balanced: bool = False,
) -> Split:
    """Loads the split on which a classifier is trained, validated and tested.

    This is the paper's split if the paper transfers to the data set. For other data
    sets, and for a part of the labels, a fifth of the bank is held out for validation.
    If `val_size` is set, the held-out images replace the test set, which is not read.

    Args:
        location: location of the images.
        given: the images of the location, if they are in memory.
        balanced: whether a fifth of each class is held out, not a fifth of all images;
            it always is for a part of the labels.

    Raises:
        ValueError: if the source is unknown, its name or path is missing, the data do
            not have the form that the source requires, or there are no labels.
        FileNotFoundError: if the data are missing.
    """
    location = location.on_disk()
    is_tfds = location.source == "tfds"
    entry = datasets.find(location.name) if is_tfds else None
    has_few = given is not None and given.few is not None
    if entry and entry.split and not location.val_size and not has_few:
        from logo_jax.data.sources import tfds as tfds_source

        folder = tfds_source.directory(location.data_dir)
        builder = tfds_source.prepared(entry.tfds, folder)
        images = {
            name: tfds_source.TfdsSource(builder, name, location.decoding)
            for name in entry.split.splits
        }
        return Split(images, functools.partial(datasets.partition, entry), entry.metric)
    data = given or load_images(location)
    if data.bank is None or data.queries is None:
        raise ValueError(
            f"{data.train.origin} has no labeled training and test set, which a "
            f"classifier needs; choose another --dataset ({data.why_no_queries})"
        )
    fifth = splits.ValidationSplit(round(len(data.bank) / 5))
    held_out = splits.BalancedSplit() if balanced or has_few else fifth
    draw = functools.partial(held_out.draw, rng=np.random.default_rng(0))
    metric = entry.metric if entry else "top1"
    return Split({"train": data.bank, "test": data.queries}, draw, metric)


def require_images(images: str | Path, name: str = "") -> None:
    """Raises an error if images are at a path that does not exist.

    Args:
        images: as for `locate_dataset`; a `Path` is never the name of a data set.
        name: beginning of the message, such as "--data=".

    Raises:
        FileNotFoundError: if a path is neither a folder, nor a list, nor an .npz file.
        ValueError: if it is a URL.
    """
    if isinstance(images, str) and datasets.find(images):  # such as voc/2007
        return
    paths = [as_path(path) for path in parse_paths(str(images))]
    is_path = isinstance(images, Path) or "/" in images or len(paths) > 1
    for path in paths:
        has_images = path.suffix == ".npz" or is_table(path)
        exists = path.is_dir() or (has_images and path.is_file())
        if (is_path or has_images) and not exists:
            raise FileNotFoundError(
                f"{name}{path} is not a folder; give a folder or a list of images, an "
                ".npz file, or a name of TFDS such as 'cifar10'"
            )


def locate_dataset(dataset: str) -> dict[str, str]:
    """Returns the fields of a config's data group for a path or a TFDS name.

    Args:
        dataset: a folder, a list of images, an .npz file or a TFDS name; or several
            folders or lists, divided by commas.

    Raises:
        ValueError: if it is a URL.
    """
    paths = [as_path(x) for x in parse_paths(dataset)]
    path = paths[0]
    if all(is_table(x) and x.is_file() for x in paths):
        return {"source": "folder", "list": dataset, "path": ""}
    if len(paths) > 1:
        return {"source": "folder", "list": "", "path": dataset}
    if path.suffix == ".npz" and path.is_file():
        return {"source": "npz", "path": dataset}
    if not path.is_dir():
        return {"source": "tfds", "name": dataset}
    if is_saved(path):
        return {"source": "huggingface", "path": dataset}
    if is_written(path):
        return {"source": "canvases", "path": dataset}
    names = files_with_suffix(path, ".npz")
    archives = [name.removesuffix(".npz") for name in names]
    source = "npz" if find_splits(archives)["train"] else "folder"
    return {"source": source, "path": dataset}


def _tfds(location: DataLocation) -> ExperimentData:
    # Imported only when needed: importing TFDS takes almost a second.
    from logo_jax.data.sources import tfds as tfds_source

    name = location.name
    if not name:
        raise ValueError("source='tfds' needs the data set's name, such as 'cifar10'")
    folder = tfds_source.directory(location.data_dir)
    if entry := datasets.find(name):
        builder = tfds_source.prepared(entry.tfds, folder)
        splits = entry.pretrain, entry.train, entry.test
        return _of_splits(builder, *splits, location.decoding)
    builder = tfds_source.prepared(name, folder)
    tests = (split for split in ("test", "validation") if split in builder.info.splits)
    test = next((split for split in tests if _is_labeled(builder, split)), "")
    return _of_splits(builder, "train", "train", test, location.decoding)


def _is_labeled(builder, split: str) -> bool:
    """Whether the first image of a split has a label; a test set may hide them all."""
    from logo_jax.data.sources.tfds import TfdsSource

    (first,) = TfdsSource(builder, split).records([0])
    return np.ndim(first.label) > 0 or first.label != NO_LABEL


def _of_splits(
    builder, pretrain: str, train: str, test: str, decoding: Decoding
) -> ExperimentData:
    from logo_jax.data.sources.tfds import TfdsSource

    read = functools.partial(TfdsSource, builder, decoding=decoding)
    images = read(pretrain)
    bank = images if train == pretrain else train and read(train)
    if not (bank and test and bank.num_classes):
        return ExperimentData(images)
    return ExperimentData(images, bank, read(test))


def _folder(location: DataLocation) -> ExperimentData:
    return _with_bank(*_folder_splits(location))


def _with_bank(
    train: FolderSource | HuggingFaceSource, test: ImageSource | None, remark: str
) -> ExperimentData:
    """Returns the images; the bank has those training images that have labels."""
    bank = train.labeled() if train.num_classes else train
    is_bank = test is not None or bank is not train
    return ExperimentData(train, bank if is_bank else None, test, remark)


def _huggingface(location: DataLocation) -> ExperimentData:
    if not location.path:
        raise ValueError(
            "source='huggingface' needs path, the folder of a data set that "
            "datasets.save_to_disk wrote; set config.data.path"
        )
    columns = parse_columns(location.columns)
    splits = load_huggingface(
        location.path, columns=columns, decoding=location.decoding
    )
    return _with_bank(*splits)


def _canvases(location: DataLocation) -> ExperimentData:
    if not location.path:
        raise ValueError(
            "source='canvases' needs path, the folder that python -m logo_jax.prepare "
            "--canvas wrote; set config.data.path"
        )
    if location.decoding.dtype:
        raise ValueError(
            f"{location.path} has colors of 8 bits; leave out config.data.channels, "
            "dtype, value_range and reader, or use another source"
        )
    found = load_canvases(existing_folder(location.path))
    return ExperimentData(*found)


def _folder_splits(location: DataLocation) -> FolderSplits:
    decoding = location.decoding
    if location.list:
        for name in ("classes", "label_pattern"):
            if value := getattr(location, name):
                raise ValueError(
                    f"config.data.{name}={value!r} is for folders, and does not apply "
                    f"to config.data.list={location.list!r}; remove one of the two"
                )
        columns = parse_columns(location.columns)
        lists = parse_paths(location.list)
        return load_lists(lists, path=location.path, columns=columns, decoding=decoding)
    if not location.path:
        raise ValueError(
            "source='folder' needs path, a folder of images; set config.data.path, or "
            "config.data.list for a table of images"
        )
    paths = parse_paths(location.path)
    found = [_one_folder(path, location) for path in paths]
    return found[0] if len(found) == 1 else join_folders(paths, found)


def _one_folder(path: Path, location: DataLocation) -> FolderSplits:
    decoding, classes = location.decoding, location.classes
    if is_saved(path) and location.layout == "auto":
        raise ValueError(
            f"{path} has a data set of Hugging Face; use "
            "--config.data.source=huggingface"
        )
    if is_written(path):
        raise ValueError(
            f"{path} has reduced images; use --config.data.source=canvases"
        )
    if location.layout == "auto" and not classes and not location.label_pattern:
        columns = parse_columns(location.columns)
        if known := load_layout(existing_folder(path), columns, decoding):
            return known
    pattern = location.label_pattern
    return load_folder(path, classes=classes, label_pattern=pattern, decoding=decoding)


def load_unsplit(
    path: str, decoding: Decoding = DEFAULT_DECODING
) -> FolderSource | HuggingFaceSource:
    """Returns all images of a folder, of several, or of a list; also of all splits.

    Args:
        path: a folder or a list, or several divided by commas; or the folder of a data
            set of Hugging Face.
        decoding: how the files are decoded.

    Raises:
        FileNotFoundError: if a folder, a list or a file that it names is missing.
        ValueError: if there are no images, or a list cannot be read.
    """
    paths = parse_paths(on_disk(path))
    if any(map(is_table, paths)):
        return load_unsplit_lists(paths, decoding=decoding)
    if len(paths) == 1 and is_saved(paths[0]):
        return load_unsplit_huggingface(paths[0], decoding=decoding)
    found = [load_unsplit_folder(x, decoding=decoding) for x in paths]
    return found[0] if len(found) == 1 else choose_splits({"train": found}).train


def _npz(location: DataLocation) -> ExperimentData:
    path = location.path
    if not path:
        raise ValueError(
            "source='npz' needs path, the folder of train.npz; set config.data.path"
        )
    train, test, remark = load_npz_splits(path, location.decoding)
    return ExperimentData(train, train if test else None, test, remark)


def _arrays(location: DataLocation) -> ExperimentData:
    raise ValueError(
        f"the images ({location.name}) were passed to logo_jax.pretrain and are not "
        "stored; pass them again, or choose another data set"
    )


def _photographs(location: DataLocation) -> ExperimentData:
    if location.channels != 3:
        raise ValueError(
            f"config.data.channels={location.channels} must be 3, the channels of "
            "photographs"
        )
    train, test = (
        photographs.load_photographs("train"),
        photographs.load_photographs("test"),
    )
    return ExperimentData(train, train, test)


_OF_PIXELS = ("npz", "photographs", "arrays")  # sources of decoded images
_LOADERS: dict[str, Callable[[DataLocation], ExperimentData]] = {
    "tfds": _tfds,
    "folder": _folder,
    "npz": _npz,
    "huggingface": _huggingface,
    "canvases": _canvases,
    "photographs": _photographs,
    "arrays": _arrays,
}
