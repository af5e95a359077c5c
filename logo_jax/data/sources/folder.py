"""Images from a folder of image files, labeled by sub-folder or unlabeled.

The splits are `DIR/train` and `DIR/test` (or `val`, `validation`); without `DIR/train`,
all images below DIR are for training. If every image of a split is in a sub-folder, the
first sub-folder of the path is the image's class; otherwise the split is unlabeled.
Sub-folders may be nested. Names that begin with a dot and files without an image suffix
are skipped.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from logo_jax.data.sources.base import NO_LABEL, Record

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val", "validation")}


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """`ImageSource` of image files.

    Attributes:
        root: folder of the split.
        files: sorted paths of the files, relative to `root`.
        labels: class of each file; empty if unlabeled.
        class_names: names of the sub-folders, indexed by label.
        largest: upper bound of the image (height, width) in pixels; None if unknown.
    """

    root: str
    files: tuple[str, ...]
    labels: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    largest: tuple[int, int] | None = None

    @property
    def origin(self) -> str:
        """Path of the folder, for error messages."""
        return self.root

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
                self.labels[i] if self.labels else NO_LABEL,
            )
            for i in ids
        ]

    def name(self, i: int) -> str:
        """Path of file i."""
        return str(Path(self.root, self.files[i]))


def load_folder(
    path: str | Path, *, classes: str | Path = ""
) -> tuple[FolderSource, FolderSource | None]:
    """Returns the training images of a folder and its labeled test images, or None.

    Args:
        path: path of the folder.
        classes: text file of the sub-folders to keep, one per line; "" to keep all.

    Raises:
        FileNotFoundError: if the folder is missing.
        OSError: if a sub-folder cannot be listed.
        ValueError: if there are no images, the list of classes cannot be read, a listed
            class has no images, or a test class is not a training class.
    """
    root = _existing(path)
    kept = _class_list(classes) if classes else None
    train_root, test_root = (_split_root(root, split) for split in SPLIT_FOLDERS)
    train = _scan(train_root or root, kept)
    if train_root is None or test_root is None or not train.labels:
        return train, None
    test = _scan(test_root, kept)
    if not test.labels:
        return train, None
    return train, _with_classes_of(train, test)


def load_unsplit_folder(path: str | Path) -> FolderSource:
    """Returns all images below a folder, ignoring splits.

    Raises:
        FileNotFoundError: if the folder is missing.
        OSError: if a sub-folder cannot be listed.
        ValueError: if there are no images.
    """
    return _scan(_existing(path), None)


def _existing(path: str | Path) -> Path:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is not a folder; give the path of a folder of images"
        )
    return root


def _split_root(root: Path, split: str) -> Path | None:
    found = (root / name for name in SPLIT_FOLDERS[split])
    return next((folder for folder in found if folder.is_dir()), None)


def _scan(root: Path, kept: tuple[str, ...] | None) -> FolderSource:
    files = tuple(sorted(_image_files(root)))
    if kept is not None:
        files = tuple(file for file in files if _class_of(file) in kept)
    if not files:
        raise ValueError(
            f"{root} contains no images ({', '.join(SUFFIXES)} files)"
            + (" in the sub-folders listed by config.data.classes" if kept else "")
        )
    names = [_class_of(file) for file in files]
    if "" in names:
        return FolderSource(str(root), files)
    class_names = tuple(sorted(set(names)))
    if kept is not None and set(kept) - set(class_names):
        missing = sorted(set(kept) - set(class_names))
        raise ValueError(f"{root} has no images of class {missing[0]}; add them")
    label = {name: i for i, name in enumerate(class_names)}
    return FolderSource(
        str(root), files, tuple(label[name] for name in names), class_names
    )


def _image_files(root: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error  # by default, os.walk skips folders that it cannot list

    found = []
    for folder, folders, names in os.walk(root, onerror=fail, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.relpath(os.path.join(folder, name), root)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return found


def _class_of(file: str) -> str:
    """Returns the first sub-folder of a path; "" if there is none."""
    return file.split(os.sep)[0] if os.sep in file else ""


def _class_list(file: str | Path) -> tuple[str, ...]:
    try:
        lines = Path(file).expanduser().read_text("utf-8").splitlines()
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
    label = {name: i for i, name in enumerate(train.class_names)}
    unknown = sorted(set(test.class_names) - set(label))
    if unknown:
        raise ValueError(
            f"{test.root} has a class {unknown[0]!r} that {train.root} does not have; "
            "use the same sub-folders in both"
        )
    labels = tuple(label[test.class_names[old]] for old in test.labels)
    return dataclasses.replace(test, labels=labels, class_names=train.class_names)
