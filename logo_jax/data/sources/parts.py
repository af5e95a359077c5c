"""Joins images of several folders and lists, and chooses those of the queries."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from logo_jax.data.sources.arrow import pa
from logo_jax.data.sources.base import NO_LABEL
from logo_jax.data.sources.folder import (
    HOLD_OUT,
    FolderSource,
    FolderSplits,
    not_used,
    with_classes,
)
from logo_jax.data.sources.names import Names


def choose_splits(
    parts: Mapping[str, Sequence[FolderSource]], remark: str = ""
) -> FolderSplits:
    """Returns the images of the splits of several sources, with common classes.

    A class is one with all others of its name. The first of "val" and "test" that has
    labels has the queries.

    Args:
        parts: sources by split: "train", "val" and "test"; "train" has at least one.
        remark: what is not used, or why there are no queries.
    """
    names = ordered(
        {name for own in parts.values() for part in own for name in part.class_names}
    )
    whole = {
        split: join([with_classes(part, names) for part in own])
        for split, own in parts.items()
        if own
    }
    train = _of_several_classes(whole.pop("train"))
    labeled = [part for part in whole.values() if (part.labels != NO_LABEL).any()]
    if not train.num_classes:
        return FolderSplits(train, None, train.why_unlabeled)
    if not labeled:
        unlabeled = [f"{part.origin} has no labels" for part in whole.values()]
        reason = (
            "; ".join(unlabeled)
            or remark
            or f"there is no val or test for {train.origin}"
        )
        return FolderSplits(train, None, f"{reason}; {HOLD_OUT}")
    unused = [part.origin for part in whole.values() if part is not labeled[0]]
    test = labeled[0].labeled()
    unknown = len(test) - int(np.isin(test.labels, train.labels).sum())
    new = f"{unknown:,} of the queries have a class that no training image has"
    remarks = filter(None, (remark, not_used(unused), new * bool(unknown)))
    return FolderSplits(train, test, "; ".join(remarks))


def join_folders(
    paths: Sequence[Path], folders: Sequence[FolderSplits]
) -> FolderSplits:
    """Returns the images of several folders; classes of the same name are one.

    Args:
        paths: paths of the folders.
        folders: images of each folder.

    Raises:
        ValueError: if a folder contains another of them.
    """
    roots = [os.path.realpath(path) for path in paths]
    for i, root in enumerate(roots):
        for other in roots[:i] + roots[i + 1 :]:
            if os.path.commonpath([root, other]) == root:
                raise ValueError(
                    f"{other} is in {root}, so that its images would count twice; give "
                    "folders that do not contain each other"
                )
    tests = [folder.test for folder in folders if folder.test is not None]
    remarks = [folder.remark for folder in folders if folder.test is not None]
    parts = {"train": [folder.train for folder in folders], "val": tests}
    return choose_splits(parts, "; ".join(filter(None, remarks)))


def _of_several_classes(images: FolderSource) -> FolderSource:
    """The images; without labels if they have fewer than two classes."""
    count = len(np.unique(images.labels[images.labels != NO_LABEL]))
    if count > 1:
        return images
    why = images.why_unlabeled or f"{images.origin} has no labels"
    if count == 1:
        name = images.class_names[images.labels.max()]
        why = f"{images.origin} has one class, {name}; two or more are needed"
    none = np.empty(0, np.int32)
    return dataclasses.replace(images, labels=none, class_names=(), why_unlabeled=why)


def join(sources: Sequence[FolderSource]) -> FolderSource:
    """Returns the images of sources with the same classes as one source.

    The files are relative to the nearest folder that contains those of all sources.
    """
    if len(sources) == 1:
        return sources[0]
    root = os.path.commonpath([os.path.abspath(source.root) for source in sources])
    starts = [os.path.relpath(os.path.abspath(x.root), root) for x in sources]
    reasons = [f"{x.why_unlabeled}" for x in sources if x.why_unlabeled]
    return dataclasses.replace(
        sources[0],
        root=root,
        files=Names(pa.concat_arrays([_below(root, source) for source in sources])),
        labels=np.concatenate([source.labels for source in sources]),
        why_unlabeled="; ".join(reasons),
        notes=tuple(dict.fromkeys(note for x in sources for note in x.notes)),
        title=" and ".join(dict.fromkeys(source.origin for source in sources)),
        joined=tuple(f"{start}{os.sep}" for start in starts if start != os.curdir),
    )


def _below(root: str, source: FolderSource) -> "pa.Array":
    folder = os.path.relpath(os.path.abspath(source.root), root)
    if folder == ".":
        return source.files.array
    return Names.of(os.path.join(folder, name) for name in source.files).array


def ordered(names: Iterable[str]) -> list[str]:
    """Returns names of classes in their order: numbers by value, others as strings.

    >>> ordered({"10", "9"}), ordered({"10", "9", "a"})
    (['9', '10'], ['10', '9', 'a'])
    """
    names = sorted(names)
    return sorted(names, key=int) if all(map(str.isdecimal, names)) else names
