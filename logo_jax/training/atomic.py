"""Files and folders that take their name only once they are whole.

A process that is killed, or a disk that is full, leaves what was there before.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it at the end of the block.

    The block writes a file or a folder there. A file at `path` is replaced. Of a folder
    at `path` the files of the same names are replaced, and the others stay. Where the
    block raises, nothing has changed.

    Args:
        path: of the file or folder; its parent exists.

    Raises:
        OSError: where it cannot be written; names `path`.
    """
    partial = path.with_name(f"partial.{path.name}")  # at the front: suffixes count
    with name_in_errors(path):
        _remove(partial)
        try:
            yield partial
            if partial.is_dir() and path.is_dir():
                for file in partial.iterdir():
                    os.replace(file, path / file.name)
            else:
                os.replace(partial, path)
        finally:
            _remove(partial)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file, all of it or nothing; its line ends are those of the text.

    Raises:
        OSError: where it cannot be written; names `path`.
    """
    with replace(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Adds the file's name to the system's errors; a full disk does not say it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror or error}") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
