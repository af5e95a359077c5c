"""Recognizes known data sets and lists in a folder by the names of its files.

A layout is an entry of LAYOUTS: files and folders that must exist, and the folder or
the list that has the images of each split. In addition, a list with one of LIST_NAMES
in a folder without sub-folders of classes labels its images, as in Kaggle's data sets.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logo_jax.data.sources.arrow import pa, pc
from logo_jax.data.sources.base import DEFAULT_DECODING, Decoding
from logo_jax.data.sources.folder import (
    FolderSource,
    FolderSplits,
    find_splits,
    labeled_by_folders,
    sub_folders,
)
from logo_jax.data.sources.lists import files_of, load_lists
from logo_jax.data.sources.parts import choose_splits
from logo_jax.data.sources.scan import scan
from logo_jax.data.sources.tables import Table, has_images, read_table

LIST_NAMES = (
    *("train.csv", "train_labels.csv", "train_label.csv", "trainLabels.csv"),
    *("labels.csv", "train_metadata.csv", "metadata.csv", "metadata.jsonl"),
)
OFF = "--config.data.layout=folders reads its sub-folders alone"
_IMAGES = ("images", "imgs", "img")
_SAMPLE = "sample_submission.csv"  # Kaggle's test images have no labels


@dataclasses.dataclass(frozen=True)
class Listed:
    """A list of a layout.

    Attributes:
        file: the list; a split whose list does not exist is left out.
        images: folder from which paths start.
        columns: names of columns, as for `read_table`.
        header: names of the columns of a list without a header.
        delimiter: delimiter of the columns; "" to find it.
        label: "column"; "word": the first word of the column; or "folder": the first
            folder of the path.
        splits: a list of the same rows, of which the last column is 1 for training and
            0 for test images; "" if there is none.
    """

    file: str
    images: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    header: tuple[str, ...] = ()
    delimiter: str = ""
    label: str = "column"
    splits: str = ""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a data set.

    Attributes:
        name: name of the data set.
        marks: paths, or patterns of them, that all exist in the folder.
        parts: by split, a list, or a folder whose sub-folders are the classes.
        remark: why there are no queries, if there are none.
    """

    name: str
    marks: tuple[str, ...]
    parts: Mapping[str, Listed | str]
    remark: str = ""


def _imagenet(root: str, images: str) -> Layout:
    solution = f"{root}LOC_val_solution.csv"
    columns = {"image": "ImageId", "label": "PredictionString"}
    val = Listed(solution, f"{images}val", columns, label="word")
    marks = (f"{images}train/n*", solution, f"{images}val")
    return Layout("Kaggle's ImageNet", marks, {"train": f"{images}train", "val": val})


def _image_folder(suffix: str, val: str, marked: tuple[str, ...]) -> Layout:
    """Returns the layout with a list in each folder.

    Args:
        suffix: suffix of the lists.
        val: folder of the validation images.
        marked: folders that must have a list.
    """
    folders = {"train": "train", "val": val, "test": "test"}
    parts = {x: Listed(f"{y}/metadata{suffix}", y) for x, y in folders.items()}
    marks = tuple(f"{folder}/metadata{suffix}" for folder in marked)
    return Layout("Hugging Face's ImageFolder", marks, parts)


def _food(split: str) -> Listed:
    return Listed(f"meta/{split}.txt", "images", header=("path",), label="folder")


LAYOUTS = (
    Layout(
        "Tiny ImageNet",
        ("train/n*/images", "val/images", "val/val_annotations.txt"),
        {
            "train": "train",
            "val": Listed(
                "val/val_annotations.txt",
                "val/images",
                header=("path", "label", "left", "top", "right", "bottom"),
                delimiter="\t",
            ),
        },
    ),
    _imagenet("", "ILSVRC/Data/CLS-LOC/"),
    _imagenet("../../../", ""),
    Layout(
        "Kaggle's ImageNet",
        ("ILSVRC/Data/CLS-LOC/train/n*",),
        {"train": "ILSVRC/Data/CLS-LOC/train"},
        "LOC_val_solution.csv, which labels the images of val, is missing",
    ),
    Layout(
        "CUB-200",
        ("images.txt", "image_class_labels.txt", "train_test_split.txt", "images"),
        {
            "train": Listed(
                "images.txt",
                "images",
                {"label": ""},
                header=("number", "path"),
                delimiter=" ",
                label="folder",
                splits="train_test_split.txt",
            )
        },
    ),
    Layout(
        "Food-101",
        ("meta/train.txt", "meta/test.txt", "images"),
        {"train": _food("train"), "test": _food("test")},
    ),
    _image_folder(".csv", "val", ("train", "val")),
    _image_folder(".csv", "validation", ("train",)),
    _image_folder(".jsonl", "val", ("train", "val")),
    _image_folder(".jsonl", "validation", ("train",)),
)


def load_layout(
    root: Path,
    columns: Mapping[str, str] | None = None,
    decoding: Decoding = DEFAULT_DECODING,
) -> FolderSplits | None:
    """Returns the images of a folder with a known layout or list; None for others.

    Raises:
        FileNotFoundError: if a list names a file that does not exist.
        ValueError: if a list cannot be read.
    """
    for layout in LAYOUTS:
        if all(any(_matches(root, mark)) for mark in layout.marks):
            return _noted(_load(root, layout, decoding), root, f"that of {layout.name}")
    return _load_beside(root, columns or {}, decoding)


def _matches(root: Path, mark: str):
    return root.glob(mark) if "*" in mark else filter(os.path.exists, [root / mark])


def _noted(found: FolderSplits, root: Path, name: str) -> FolderSplits:
    note = f"the layout of {root} is {name}; {OFF}"
    train = dataclasses.replace(found.train, notes=(note, *found.train.notes))
    return found._replace(train=train)


def _load(root: Path, layout: Layout, decoding: Decoding) -> FolderSplits:
    parts: dict[str, list[FolderSource]] = {"train": [], "val": [], "test": []}
    for split, part in layout.parts.items():
        if isinstance(part, str):
            parts[split].append(labeled_by_folders(root / part, decoding))
        elif (root / part.file).is_file():
            file = Path(os.path.normpath(root / part.file))
            table = _read(root, file, part)
            found = files_of(table, file, root / part.images, split, decoding)
            for name, images in found.items():
                parts[name].append(images)
    return choose_splits(parts, layout.remark)


def _read(root: Path, file: Path, part: Listed) -> Table:
    """Reads a list of a layout; its labels and splits are not always columns."""
    columns = dict(part.columns)
    if part.label == "folder":
        columns["label"] = ""
    table = read_table(file, columns, header=part.header, delimiter=part.delimiter)
    added: dict[str, Any] = {}
    if part.label == "word":
        first = pc.replace_substring_regex(table.columns["label"], r"\s.*$", "")
        added["label"] = first
    if part.label == "folder":
        added["label"] = pc.replace_substring_regex(table.columns["image"], "/.*$", "")
    if part.splits:
        is_train = read_table(
            root / part.splits,
            {"image": "number", "label": "train"},
            header=("number", "train"),
            delimiter=part.delimiter,
        ).columns["label"]
        if len(is_train) != len(table.columns["image"]):
            raise ValueError(
                f"{root / part.splits} must have as many rows as {file}; restore both"
            )
        names = pa.array(["test", "train"], pa.large_string())
        added["split"] = names.take(pc.cast(is_train, pa.int64()))
    return table._replace(columns=table.columns | added)


def _load_beside(
    root: Path, columns: Mapping[str, str], decoding: Decoding
) -> FolderSplits | None:
    """Returns the images of a list in a folder without sub-folders of classes."""
    lists = [root / name for name in LIST_NAMES if (root / name).is_file()]
    if not lists:  # most folders, of which some have millions of files
        return None
    folders = sub_folders(root)
    usual = [name for name in folders if name.lower() in _IMAGES]
    chosen = find_splits(folders)["train"] or usual or folders
    images = root / next(iter(chosen), "")
    if len(chosen) > 1 or (chosen and sub_folders(images)):
        return None
    vals = [root / f"{name}.csv" for name in ("val", "valid", "validation")]
    files = [lists[0], *filter(Path.is_file, vals)]
    if not all(has_images(file, columns) for file in files):
        return None
    try:
        found = load_lists(files, columns=columns, decoding=decoding)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error}; {OFF}") from error
    unlisted = len(scan(images, decoding).files) - len(found.train)
    name = f"images with the list {lists[0].name}"
    if unlisted > 0:
        name += f", which does not name {unlisted:,} images of {images}"
    remark = found.remark
    if found.test is None and (root / _SAMPLE).is_file():
        remark = f"the test images have no labels ({_SAMPLE}); {remark}"
    return _noted(found._replace(remark=remark), root, name)
