"""Images from a folder of image files, labeled by sub-folder or unlabeled.

`DIR/train` and `DIR/test` (or `val`, `validation`) are its splits; without a `train`
the whole folder is for training. If every image of a split lies in a sub-folder, the
first sub-folder is its class; otherwise the split is unlabeled. Folders may be nested;
names that begin with a dot, and files without an image suffix, are skipped.
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
    """Image files by number: an `ImageSource`.

    Attributes:
        root: folder of the split.
        files: paths under it, sorted.
        labels: class of each file; empty if unlabeled.
        class_names: names of the sub-folders, indexed by label.
    """

    root: str
    files: tuple[str, ...]
    labels: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    largest: tuple[int, int] | None = None

    @property
    def origin(self) -> str:
        """The folder."""
        return self.root

    @property
    def num_classes(self) -> int:
        """Number of sub-folders; 0 if unlabeled."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.files)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """The files of these numbers, in this order."""
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
    """The training images of a folder, and its test images, None if there are none.

    Args:
        path: the folder.
        classes: a text file of sub-folders to keep, one per line; "": all.

    Raises:
        FileNotFoundError: if the folder or the list of classes is missing.
        OSError: if a folder below cannot be listed.
        ValueError: if there are no images, or a class is missing or unknown.
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
    """All images below a folder, without splits.

    Raises:
        FileNotFoundError: if the folder is missing.
        OSError: if a folder below cannot be listed.
        ValueError: if there are no images.
    """
    return _scan(_existing(path), None)


def _existing(path: str | Path) -> Path:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; give one that holds images")
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
            f"{root} holds no images; give a folder with {', '.join(SUFFIXES)} files"
            + (" in the sub-folders that config.data.classes lists" if kept else "")
        )
    names = [_class_of(file) for file in files]
    if "" in names:
        return FolderSource(str(root), files)
    class_names = tuple(sorted(set(names)))
    if kept is not None and set(kept) - set(class_names):
        missing = sorted(set(kept) - set(class_names))
        raise ValueError(f"{root} has no images of class {missing[0]}; complete it")
    label = {name: i for i, name in enumerate(class_names)}
    return FolderSource(
        str(root), files, tuple(label[name] for name in names), class_names
    )


def _image_files(root: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error  # os.walk would skip folders that it cannot list

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
    """The first sub-folder of a path; "" if there is none."""
    return file.split(os.sep)[0] if os.sep in file else ""


def _class_list(file: str | Path) -> tuple[str, ...]:
    try:
        lines = Path(file).expanduser().read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"config.data.classes={file} cannot be read ({error}); give a text file "
            "that lists one sub-folder a line"
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"{file} lists no class; write one sub-folder a line")
    return names


def _with_classes_of(train: FolderSource, test: FolderSource) -> FolderSource:
    """The test set with the training set's numbering of classes."""
    label = {name: i for i, name in enumerate(train.class_names)}
    unknown = sorted(set(test.class_names) - set(label))
    if unknown:
        raise ValueError(
            f"{test.root} has a class {unknown[0]!r} that {train.root} lacks; "
            "give both the same sub-folders"
        )
    labels = tuple(label[test.class_names[old]] for old in test.labels)
    return dataclasses.replace(test, labels=labels, class_names=train.class_names)
