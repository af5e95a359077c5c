"""Finds the image files below a folder, and states what it passes over."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from logo_jax.data.decode import readable_suffixes

# Folders that file servers, archives and desktops write next to a user's files.
_JUNK = {
    *("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin"),
    *("system volume information", "lost+found", "__macosx", "__pycache__"),
}
_PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif"}
_NAMED = 5  # kinds of files that a line names


@dataclasses.dataclass(frozen=True)
class Scan:
    """What is below a folder.

    Attributes:
        files: paths of the image files relative to the folder, sorted.
        other: number of other files, by suffix in lower case.
        folders: number of folders that were passed over, by what they are.
    """

    files: tuple[str, ...]
    other: Counter[str]
    folders: Counter[str]

    def passed_over(self) -> str:
        """Returns a phrase that states what was passed over; "" if nothing was."""
        parts = []
        for suffix, count in self.other.most_common(_NAMED):
            plugin = _PLUGINS.get(suffix)
            needs = f" (install {plugin} to read them)" if plugin else ""
            parts.append(f"{count:,} {suffix or 'without a suffix'}{needs}")
        rest = self.other.total() - sum(n for _, n in self.other.most_common(_NAMED))
        parts += [f"{rest:,} other"] if rest else []
        files = [f"files: {', '.join(parts)}"] if parts else []
        found = [f"{count:,} {what}" for what, count in sorted(self.folders.items())]
        folders = [f"folders: {', '.join(found)}"] if found else []
        return "; ".join(files + folders)


def scan(root: str | Path) -> Scan:
    """Lists the image files below a folder; each folder is read once.

    Linked folders are followed unless they are read anyway or contain `root`. Folders
    are read under their own names first, and then under the names of links in sorted
    order, so the result does not depend on the file system. Hidden files and folders,
    folders of file servers (`@eaDir`, `lost+found`) and folders of runs are passed
    over.

    Args:
        root: the folder.

    Raises:
        OSError: if a folder cannot be listed.
    """
    root = Path(root)
    walk = _Walk(str(root))
    waiting = [""]
    while waiting:
        links: list[str] = []
        for folder in sorted(waiting):
            links += walk.read(folder)
        waiting = links
    return Scan(tuple(sorted(walk.files)), walk.other, walk.folders)


class _Walk:
    """The files found so far, and the folders that have been read."""

    def __init__(self, root: str):
        self._root = root
        self._suffixes = readable_suffixes()
        above = {*Path(root).absolute().parents, *Path(root).resolve().parents}
        self._above = {_identity(str(folder)) for folder in above}
        self._read: set[tuple[int, int]] = set()
        self.files: list[str] = []
        self.other: Counter[str] = Counter()
        self.folders: Counter[str] = Counter()

    def read(self, start: str) -> list[str]:
        """Reads a folder and the folders in it; returns the linked folders."""
        links: list[str] = []
        folders = [start]
        while folders:
            folder = folders.pop()
            if not self._is_new(folder):
                continue
            for entry in self._entries(folder):
                path = f"{folder}{os.sep}{entry.name}" if folder else entry.name
                if not _is_folder(entry):
                    self._add(path)
                elif is_junk(entry.name):
                    self.folders[entry.name] += 1
                else:
                    (links if entry.is_symlink() else folders).append(path)
        return links

    def _is_new(self, folder: str) -> bool:
        identity = _identity(os.path.join(self._root, folder))
        if identity in self._above or identity in self._read:
            self.folders["linked (to a folder that is read once)"] += 1
            return False
        self._read.add(identity)
        return True

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(os.path.join(self._root, folder)) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        names = {entry.name for entry in shown}
        if (
            folder
            and "config.json" in names
            and names & {"metrics.jsonl", "checkpoints"}
        ):
            self.folders["of runs"] += 1
            return
        yield from shown

    def _add(self, path: str) -> None:
        _, dot, end = path[path.rfind(os.sep) + 1 :].rpartition(".")
        suffix = f"{dot}{end}".lower() if dot else ""
        if suffix in self._suffixes:
            self.files.append(path)
        else:
            self.other[suffix] += 1


def is_junk(name: str) -> bool:
    """Whether a folder of this name is hidden or has no images of the user."""
    return name.startswith(".") or name.lower() in _JUNK


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
