"""Images from a folder of image files, labeled by sub-folder or unlabeled.

The splits are sub-folders, whose names may be written in capitals: `train` (or
`training`); `val` (`valid`, `validation`, `dev`); `test` (`testing`). Without `train`,
all images below the folder are for training. The first split of `val` and `test` that
is labeled has the queries of kNN.

A split is labeled if its images are in sub-folders: the first sub-folder of the path is
the image's class. One of 20 images may be in none, and has no label; if there are more,
the sub-folders may be no classes, and no image has a label. Training images in a single
sub-folder are unlabeled, because one class cannot be evaluated. Sub-folders may be
nested. A regular expression can take the classes from the names of the files instead.
"""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from logo_jax.data.sources.base import DEFAULT_DECODING, NO_LABEL, Decoding, Record
from logo_jax.data.sources.names import Names
from logo_jax.data.sources.scan import Scan, is_folder, is_junk, scan
from logo_jax.storage.paths import local_path

SPLIT_NAMES = {
    "train": ("train", "training", "train_images", "train2017"),
    "val": ("val", "valid", "validation", "dev", "val_images", "val2017"),
    "test": ("test", "testing", "test_images", "test2017"),
}
FEW = 20  # one of so many images may be in no class
NO_CLASS = "outside of the folders of classes"  # in the note about them
UNMATCHED = "not matched by config.data.label_pattern"
MANY = 100_000  # files; the first lines of a run state how long it took to list more
_NUMBERED = r"^(.+?)[-_. ]*\d+\.\w+$"  # names such as cat.0.jpg, and their class
_LOOKED_AT = 10_000  # names that are looked at for that
HOLD_OUT = "config.data.val_size=N holds out N training images as queries"


def _no_labels() -> np.ndarray:
    return np.empty(0, np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """`ImageSource` of image files.

    Attributes:
        root: folder of the split.
        files: paths of the files, relative to `root` or absolute; in the order of
            their numbers, which is that of their names unless a list gives another.
        labels: class of each file, int32 [n], NO_LABEL if unknown; empty if unlabeled.
        class_names: names of the classes, indexed by label.
        largest: upper bound of the image (height, width) in pixels; None if unknown.
        decoding: how the files are decoded.
        why_unlabeled: why the images have no labels, and the remedy; "" if they have.
        notes: sentences about what was passed over, for the start of a run.
        title: name of the images; "" for the path of the folder.
        joined: if files of several folders were joined, what their paths begin with for
            each of these, with a separator at its end.
    """

    root: str
    files: Names
    labels: np.ndarray = dataclasses.field(default_factory=_no_labels)
    class_names: tuple[str, ...] = ()
    largest: tuple[int, int] | None = None
    decoding: Decoding = DEFAULT_DECODING
    why_unlabeled: str = ""
    notes: tuple[str, ...] = ()
    title: str = ""
    joined: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The title, for error messages; the path of the folder if there is none."""
        return self.title or self.root

    @property
    def num_classes(self) -> int:
        """Number of classes, one per sub-folder; 0 if unlabeled."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.files)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Returns the files with the given numbers, in the given order."""
        return [
            Record(
                Path(self.root, self.files[i]),
                int(self.labels[i]) if len(self.labels) else NO_LABEL,
                self.decoding,
            )
            for i in ids
        ]

    def take(self, ids: Sequence[int] | np.ndarray) -> Self:
        """Returns a source of the files with the given numbers, in the given order."""
        ids = np.asarray(ids, np.int64)
        labels = self.labels[ids] if len(self.labels) else self.labels
        return dataclasses.replace(self, files=self.files.take(ids), labels=labels)

    def labeled(self) -> Self:
        """Returns the files whose class is known; the source itself if all are."""
        known = np.flatnonzero(self.labels != NO_LABEL)
        return self if len(known) == len(self) else self.take(known)

    def name(self, i: int) -> str:
        """Path of file i."""
        return str(Path(self.root, self.files[i]))

    def own_names(self) -> Names:
        """The paths of the files relative to their own folder, if several are joined.

        They do not depend on where each of the folders is.
        """
        if not self.joined:
            return self.files
        longest = sorted(self.joined, key=len, reverse=True)
        return Names.of(
            name.removeprefix(next(filter(name.startswith, longest), ""))
            for name in self.files
        )


class FolderSplits(NamedTuple):
    """The splits of a folder.

    Attributes:
        train: the training images.
        test: the labeled images for queries; None if there are none.
        remark: which folders are not used; without `test`, why, and the remedy.
    """

    train: FolderSource
    test: FolderSource | None
    remark: str


class _Classes(NamedTuple):
    """How the classes of images are found.

    Attributes:
        kept: the sub-folders that are used; None for all.
        pattern: regular expression whose group is the class in the path of a file; "":
            the classes are the sub-folders.
    """

    kept: tuple[str, ...] | None = None
    pattern: str = ""


def load_folder(
    path: str | Path,
    *,
    classes: str | Path = "",
    label_pattern: str = "",
    decoding: Decoding = DEFAULT_DECODING,
) -> FolderSplits:
    """Returns the training images of a folder and its labeled images for queries.

    Args:
        path: path of the folder.
        classes: text file of the sub-folders to keep, one per line; "" to keep all.
        label_pattern: regular expression that is searched in the path of each file,
            relative to the folder of its split; its group is the class. "": the classes
            are the sub-folders.
        decoding: how the files are decoded.

    Raises:
        FileNotFoundError: if the folder is missing.
        OSError: if a sub-folder cannot be listed.
        ValueError: if there are no images, the list of classes cannot be read, a listed
            class has no images, no file matches `label_pattern`, a class of the queries
            is not a training class, or it is not clear which sub-folder has the
            training images.
    """
    root = existing_folder(path)
    how = _Classes(_class_list(classes) if classes else None, label_pattern)
    folders = sub_folders(root)
    splits = find_splits(folders)
    if not splits["train"]:
        found = scan(root, decoding)
        _require_training_folder(root, found)
        train = _labeled(root, found, how, decoding)
        return FolderSplits(train, None, _without_train(train))
    (first, *others) = splits["train"]
    if others:
        raise ValueError(
            f"{root} has the folders {first} and {others[0]}; leave one of them, or "
            f"give the path of the training images, config.data.path={root / first}"
        )
    found = scan(root / first, decoding)
    train = _labeled(root / first, found, how, decoding)
    return _with_test(root, train, splits, folders, how)


def load_unsplit_folder(
    path: str | Path, *, decoding: Decoding = DEFAULT_DECODING
) -> FolderSource:
    """Returns all images below a folder, also those of its splits.

    If every sub-folder of the folder is a split, the classes are the sub-folders of the
    splits; otherwise, they are the sub-folders of the folder.

    Raises:
        FileNotFoundError: if the folder is missing.
        OSError: if a sub-folder cannot be listed.
        ValueError: if there are no images.
    """
    root = existing_folder(path)
    found = scan(root, decoding)
    folders = [name for name in found.files.folders(0)[1] if name]
    splits = _of_splits(find_splits(folders))
    level = 1 if splits and len(splits) == len(folders) else 0
    images = _labeled(root, found, _Classes(), decoding, level=level, fewest=1)
    if not level:
        return images
    note = f"the classes are the sub-folders of {' and '.join(splits)}"
    return dataclasses.replace(images, notes=(note, *images.notes))


def labeled_by_folders(root: Path, decoding: Decoding) -> FolderSource:
    """Returns the images below a folder; their classes are its sub-folders.

    Raises:
        FileNotFoundError: if the folder is missing.
        ValueError: if there are no images.
    """
    found = scan(existing_folder(root), decoding)
    return _labeled(root, found, _Classes(), decoding)


def existing_folder(path: str | Path) -> Path:
    """Returns the path of a folder.

    Raises:
        FileNotFoundError: if it is not a folder.
    """
    root = local_path(path)
    if not root.is_dir():
        remedy = "; to read it as a list of images, use config.data.list instead"
        raise FileNotFoundError(
            f"{root} is not a folder; give the path of a folder of images"
            + remedy * root.is_file()
        )
    return root


def find_splits(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the names that are those of a split, by split, preferred ones first.

    >>> find_splits(["Train", "validation", "val", "cat"])
    {'train': ['Train'], 'val': ['val', 'validation'], 'test': []}
    """
    names = sorted(names)
    return {
        split: [name for known in aliases for name in names if name.lower() == known]
        for split, aliases in SPLIT_NAMES.items()
    }


def _of_splits(splits: dict[str, list[str]]) -> list[str]:
    return [name for names in splits.values() for name in names]


def sub_folders(root: Path) -> list[str]:
    """Returns the names of the folders in a folder, without those of file servers."""
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            if is_folder(entry) and not is_junk(entry.name)
        )


def _require_training_folder(root: Path, found: Scan) -> None:
    """Raises an error if training without a folder train would use other splits."""
    folders = set(found.files.folders(0)[1]) - {""}
    splits = _of_splits(find_splits(folders))
    if splits and len(splits) == len(folders):
        raise ValueError(
            f"{root} has {' and '.join(splits)} but no folder train; add it, or give "
            f"the path of the training images, e.g. config.data.path={root / splits[0]}"
        )
    if len(folders) == 1 and find_splits(found.files.folders(1)[1])["train"]:
        (folder,) = folders
        raise ValueError(
            f"{root} has no folder train, but {root / folder} has; use "
            f"config.data.path={root / folder}"
        )


def _without_train(train: FolderSource) -> str:
    """Remark on a folder whose images are all for training."""
    if found := _of_splits(find_splits(train.class_names)):
        return (
            f"{train.root} has no folder train, so {' and '.join(found)} count as "
            "classes; move the training classes to a folder train"
        )
    missing = f"{train.root} has no folders train and val; {HOLD_OUT}"
    return train.why_unlabeled or missing


def _with_test(
    root: Path,
    train: FolderSource,
    splits: dict[str, list[str]],
    folders: list[str],
    how: _Classes,
) -> FolderSplits:
    """Chooses the first labeled split for queries; the training images have a split."""
    candidates = splits["val"] + splits["test"]
    test, reasons = None, []
    for name in candidates if train.num_classes else ():
        found = scan(root / name, train.decoding)
        images = _labeled(root / name, found, how, train.decoding, fewest=1)
        if images.num_classes:
            test = _with_classes_of(train, images.labeled())
            break
        reasons.append(images.why_unlabeled)
    used = {Path(train.root).name, *([Path(test.root).name] if test else [])}
    unused = [str(root / name) for name in folders if name not in used]
    if test:
        return FolderSplits(train, test, not_used(unused))
    if not train.num_classes:
        return FolderSplits(train, None, train.why_unlabeled)
    if reasons:
        return FolderSplits(train, None, f"{reasons[0]}; or {HOLD_OUT}")
    remark = f"{root} has no folder val or test with the classes of train; {HOLD_OUT}"
    return FolderSplits(train, None, remark)


def not_used(names: Sequence[str]) -> str:
    """Returns a phrase about folders or files that are not used; "" if all are."""
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" * (len(names) > 3))
    return f"{shown} {'is' if len(names) == 1 else 'are'} not used"


def _labeled(
    root: Path,
    found: Scan,
    how: _Classes,
    decoding: Decoding,
    *,
    level: int = 0,
    fewest: int = 2,
) -> FolderSource:
    """Returns the images of a scan.

    The class is the folder at a level of the path, unless `how` has a pattern; they are
    unlabeled if there are fewer than `fewest` classes.
    """
    files, kept = found.files, how.kept
    numbers, names = files.folders(level)
    if kept is not None:
        is_kept = np.isin(numbers, [i for i, x in enumerate(names) if x in kept])
        files = files.take(np.flatnonzero(is_kept))
        numbers, names = files.folders(level)
    passed, notes = found.passed_over(), _notes(root, found)
    if not len(files):
        raise ValueError(
            f"{root} contains no images"
            + (" in the sub-folders listed by config.data.classes" if kept else "")
            + (f"; passed over {passed}" if passed else "; give a folder with images")
        )
    if missing := sorted(set(kept or ()) - set(names)):
        raise ValueError(f"{root} has no images of class {missing[0]}; add them")
    if how.pattern:
        numbers, names = _by_pattern(root, files, how.pattern)
        few = f"config.data.label_pattern={how.pattern!r} gives one class, {names[0]}"
        why_unlabeled = few if len(names) < fewest else ""
        outside = np.flatnonzero(numbers == NO_LABEL)
        if len(outside) and not why_unlabeled:
            notes += (_outside(root, files.take(outside), len(files), UNMATCHED),)
    else:
        outside = np.flatnonzero(numbers == 0) if names[0] == "" else ()
        if 0 < FEW * len(outside) <= len(files):
            numbers, names = numbers - 1, names[1:]  # their number becomes NO_LABEL, -1
            notes += (_outside(root, files.take(outside), len(files), NO_CLASS),)
        why_unlabeled = _why_unlabeled(root, files, numbers, names, fewest)
    return FolderSource(
        str(root),
        files,
        labels=_no_labels() if why_unlabeled else numbers,
        class_names=() if why_unlabeled else tuple(names),
        decoding=decoding,
        why_unlabeled=why_unlabeled,
        notes=notes,
    )


def _outside(root: Path, files: Names, count: int, reason: str) -> str:
    """A note about images that are in no class, though others are."""
    names = ", ".join(files[:3]) + ", ..." * (len(files) > 3)
    return (
        f"in {root}, {reason}: {len(files):,} of {count:,} images ({names}), without "
        "a label and not in kNN"
    )


def _notes(root: Path, found: Scan) -> tuple[str, ...]:
    passed, count = found.passed_over(), len(found.files)
    notes = [f"in {root}, passed over {passed}"] if passed else []
    if count >= MANY:
        notes.append(f"listed {count:,} files of {root} in {found.seconds:.1f} s")
    return tuple(notes)


def _by_pattern(root: Path, files: Names, pattern: str) -> tuple[np.ndarray, list[str]]:
    """Returns the class of each file, NO_LABEL if it does not match, and their names.

    Raises:
        ValueError: if no file matches.
    """
    matches = map(re.compile(pattern).search, files)
    found = [match[1] if match else None for match in matches]
    names = sorted({name for name in found if name})
    if not names:
        raise ValueError(
            f"config.data.label_pattern={pattern!r} matches none of the {len(files):,} "
            f"paths in {root}, such as {files[0]}; change it"
        )
    number: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    labels = np.array([number.get(name, NO_LABEL) for name in found], np.int32)
    return labels, names


def _classes_in_names(files: Names) -> str:
    """Returns the remedy if names such as cat.0.jpg seem to have classes; or ""."""
    count = min(len(files), _LOOKED_AT)
    some = files.take(np.linspace(0, len(files) - 1, count).astype(np.int64))
    matches = [re.search(_NUMBERED, name) for name in some]
    found = Counter(match[1] if match else "" for match in matches)
    if "" in found or not 2 <= len(found) <= count // 2:
        return ""
    return (
        f"; if {', '.join(sorted(found)[:3])}{', ...' * (len(found) > 3)} at the start "
        f"of the names are classes, use --config.data.label_pattern='{_NUMBERED}'"
    )


def _why_unlabeled(
    root: Path, files: Names, numbers: np.ndarray, names: Sequence[str], fewest: int
) -> str:
    """Returns why sub-folders are not classes, and the remedy; "" if they are."""
    if list(names) == [""]:
        none = f"{root} has no sub-folders; kNN needs one per class"
        return none + _classes_in_names(files)
    if names[0] == "":
        outside = np.flatnonzero(numbers == 0)
        more = f" ({len(outside):,} such files)" if len(outside) > 1 else ""
        return (
            f"{root / files[outside[0]]} is not in the folder of a class{more}, and "
            f"more than one of {FEW} images are not; move it to a class, or away"
        )
    if len(names) < fewest:
        return f"{root} has one class, {names[0]}; two or more are needed"
    return ""


def _class_list(file: str | Path) -> tuple[str, ...]:
    try:
        lines = local_path(file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"config.data.classes={file} cannot be read ({error}); it must be a text "
            "file with one sub-folder per line"
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"{file} lists no class; write one sub-folder per line")
    return names


def _with_classes_of(train: FolderSource, test: FolderSource) -> FolderSource:
    """Returns the test set with its classes numbered as in the training set."""
    unknown = sorted(set(test.class_names) - set(train.class_names))
    if unknown:
        raise ValueError(
            f"{test.root} has a class {unknown[0]!r} that {train.root} does not have; "
            "use the same sub-folders in both"
        )
    return with_classes(test, train.class_names)


def with_classes(images: FolderSource, class_names: Sequence[str]) -> FolderSource:
    """Returns images of which each class has its number in another list of classes.

    An image whose class the list does not have becomes unlabeled.
    """
    class_names = tuple(class_names)
    if not images.num_classes:
        labels = np.full(len(images), NO_LABEL, np.int32)
        return dataclasses.replace(images, labels=labels, class_names=class_names)
    number = {name: i for i, name in enumerate(class_names)}
    new = [number.get(name, NO_LABEL) for name in images.class_names]
    labels = np.array([*new, NO_LABEL], np.int32)[images.labels]  # -1: the last
    return dataclasses.replace(images, labels=labels, class_names=class_names)
