"""Reading files from tar archives in one pass, without extracting them to disk."""

import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar archive, compressed or not, for reading.

    Raises:
        FileNotFoundError: if the archive does not exist.
        ValueError: if the file is not a tar archive or is truncated.
    """
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{archive} is damaged ({reason}); download it again"
        ) from error


@contextmanager
def open_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """Opens one file of an archive, to read it in chunks.

    Raises:
        ValueError: if the archive does not contain the file.
    """
    with opened(archive) as tar:
        for member in tar:
            # Only regular files: a link could point to a file outside the archive.
            if member.name == name and member.isfile():
                yield _content(tar, member)
                return
    raise _missing(archive, name)


def stream_members(
    archive: Path, names: Collection[str]
) -> Iterator[tuple[str, bytes]]:
    """Yields the names and contents of the given files, in the archive's order.

    Raises:
        ValueError: at the end, if one of the files is not in the archive.
    """
    wanted = set(names)
    with opened(archive) as tar:
        for member in tar:
            if not wanted:
                return
            if member.name in wanted and member.isfile():
                wanted.remove(member.name)
                yield member.name, _content(tar, member).read()
    if wanted:
        raise _missing(archive, min(wanted))


def read_members(archive: Path, names: Collection[str]) -> dict[str, bytes]:
    """Returns the contents of the given files of an archive, by name.

    Raises:
        FileNotFoundError: if the archive does not exist.
        ValueError: if the archive is damaged or does not contain one of the files.
    """
    return dict(stream_members(archive, names))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None  # None only for members that are not regular files
    return file


def _missing(archive: Path, name: str) -> ValueError:
    return ValueError(f"{archive} has no file {name}; download it again")
