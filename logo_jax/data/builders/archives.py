"""Files in tar archives, read in one pass from front to back and never extracted."""

import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive, compressed or not, to be read.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no tar archive, or cut short.
    """
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{archive} is damaged ({reason}); get it again") from error


@contextmanager
def open_member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """One file of an archive, to be read in pieces.

    Raises:
        ValueError: if the archive has no such file.
    """
    with opened(archive) as tar:
        for member in tar:
            # a link could lead out of the archive
            if member.name == name and member.isfile():
                yield _content(tar, member)
                return
    raise _missing(archive, name)


def stream_members(
    archive: Path, names: Collection[str]
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of files of an archive, in the archive's order.

    Raises:
        ValueError: at the end, if the archive lacks one of them.
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
    """Contents of files of an archive, by name; errors are `stream_members`'."""
    return dict(stream_members(archive, names))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None  # as of every regular file
    return file


def _missing(archive: Path, name: str) -> ValueError:
    return ValueError(f"{archive} has no file {name}; get it again")
