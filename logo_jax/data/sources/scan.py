"""Finds the image files below a folder, and states what it passes over."""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from logo_jax.data import readers
from logo_jax.data.decode import readable_suffixes
from logo_jax.data.sources.base import DEFAULT_DECODING, Decoding
from logo_jax.data.sources.names import Names
from logo_jax.storage.paths import in_bucket

# Folders that file servers, archives and desktops write next to a user's files.
_JUNK = {
    *("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin"),
    *("system volume information", "lost+found", "__macosx", "__pycache__"),
}
_REMEDIES = {
    **dict.fromkeys((".heic", ".heif"), "install pillow-heif to read them"),
    **dict.fromkeys(
        readers.KEPT_ONLY, "set config.data.channels, or dtype=auto, to read them"
    ),
}
# in the first lines of the pages that visualization/html_page.py writes
PAGE_MARK = b'<meta name="generator" content="logo_jax">'
_NAMED = 5  # kinds of files that a line names


@dataclasses.dataclass(frozen=True)
class Scan:
    """What is below a folder.

    Attributes:
        files: paths of the image files relative to the folder, sorted by their bytes.
        other: number of other files, by suffix in lower case.
        folders: number of folders that were passed over, by what they are.
        seconds: time that the scan took.
    """

    files: Names
    other: Counter[str]
    folders: Counter[str]
    seconds: float

    def passed_over(self) -> str:
        """Returns a phrase that states what was passed over; "" if nothing was."""
        parts = []
        for suffix, count in self.other.most_common(_NAMED):
            remedy = f" ({_REMEDIES[suffix]})" if suffix in _REMEDIES else ""
            parts.append(f"{count:,} {suffix or 'without a suffix'}{remedy}")
        rest = self.other.total() - sum(n for _, n in self.other.most_common(_NAMED))
        parts += [f"{rest:,} other"] if rest else []
        files = [f"files: {', '.join(parts)}"] if parts else []
        found = [f"{count:,} {what}" for what, count in sorted(self.folders.items())]
        folders = [f"folders: {', '.join(found)}"] if found else []
        return "; ".join(files + folders)


def scan(root: str | Path, decoding: Decoding = DEFAULT_DECODING) -> Scan:
    """Lists the image files below a folder; each folder is read once.

    Linked folders are followed unless they are read anyway or contain `root`. Folders
    are read under their own names first, and then under the names of links in sorted
    order, so the result does not depend on the file system. Hidden files and folders,
    folders of file servers (`@eaDir`, `lost+found`), of runs and of reports are passed
    over.

    Args:
        root: the folder.
        decoding: how the files are decoded, which determines what an image file is.

    Raises:
        OSError: if a folder cannot be listed.
    """
    begin = time.monotonic()
    walk = _Walk(str(root), _suffixes(decoding))
    files = Names.of(walk.files()).sorted()
    return Scan(files, walk.other, walk.folders, time.monotonic() - begin)


def _suffixes(decoding: Decoding) -> frozenset[str] | None:
    """The suffixes of image files; None: all files."""
    more = readers.suffixes(decoding)
    if more is None:
        return None
    return frozenset(more) | (frozenset() if decoding.reader else readable_suffixes())


class _Walk:
    """The folders that have been read, and what was passed over."""

    def __init__(self, root: str, suffixes: frozenset[str] | None):
        self._root = root
        self._suffixes = suffixes
        above = {*Path(root).absolute().parents, *Path(root).resolve().parents}
        self._above = {_identity(str(folder)) for folder in above}
        self._read: set[tuple[int, int]] = set()
        self.other: Counter[str] = Counter()
        self.folders: Counter[str] = Counter()

    def files(self) -> Iterator[str]:
        """Yields the paths of the image files; the folders are read meanwhile."""
        waiting = [""]
        while waiting:
            links: list[str] = []
            for folder in sorted(waiting):
                yield from self._files(folder, links)
            waiting = links

    def _files(self, start: str, links: list[str]) -> Iterator[str]:
        """Yields the files in a folder and its folders; adds the linked folders."""
        folders = [start]
        while folders:
            folder = folders.pop()
            if not self._is_new(folder):
                continue
            for entry in self._entries(folder):
                path = f"{folder}{os.sep}{entry.name}" if folder else entry.name
                if not is_folder(entry):
                    if self._is_image(entry.name):
                        yield path
                elif is_junk(entry.name):
                    self.folders[entry.name] += 1
                else:
                    (links if entry.is_symlink() else folders).append(path)

    def _is_new(self, folder: str) -> bool:
        identity = _identity(os.path.join(self._root, folder))
        if identity in self._above or identity in self._read:
            self.folders["linked (to a folder that is read once)"] += 1
            return False
        self._read.add(identity)
        return True

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        path = os.path.join(self._root, folder)
        if folder and _is_run(path):
            self.folders["of runs"] += 1
            return
        if folder and _is_page(path):
            self.folders["of reports"] += 1
            return
        with os.scandir(path) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))

    def _is_image(self, name: str) -> bool:
        """Whether the name is that of an image; counts other files."""
        _, dot, end = name.rpartition(".")
        suffix = f"{dot}{end}".lower() if dot else ""
        if self._suffixes is None or suffix in self._suffixes:
            return True
        self.other[suffix] += 1
        return False


def _is_run(folder: str) -> bool:
    def has(name: str) -> bool:
        return os.path.lexists(os.path.join(folder, name))

    return has("config.json") and (has("metrics.jsonl") or has("checkpoints"))


def _is_page(folder: str) -> bool:
    """Whether a folder has a page of `report`, whose figures are next to it."""
    try:
        with open(os.path.join(folder, "index.html"), "rb") as file:
            return PAGE_MARK in file.read(512)
    except OSError:
        return False


def files_with_suffix(folder: Path, suffix: str) -> Iterator[str]:
    """Yields the names of the files directly in a folder that end with a suffix.

    `Path.glob` would make an object for each of the millions of files that a folder on
    disk may have.
    """
    if in_bucket(folder):
        yield from (file.name for file in folder.glob(f"*{suffix}"))
    elif folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.name.endswith(suffix))


def is_junk(name: str) -> bool:
    """Whether a folder of this name is hidden or has no images of the user."""
    return name.startswith(".") or name.lower() in _JUNK


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; no file is looked at."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
