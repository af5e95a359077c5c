"""Atomic writes: files and folders get their final name only when complete.

If the process is killed or the disk is full, the previous content is unchanged. Objects
of a bucket, and files in a folder that exists, are replaced as a whole, but one after
another.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from logo_jax.storage.paths import BucketPath, in_bucket
from logo_jax.storage.staged import upload


@contextlib.contextmanager
def replace(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`, renamed to `path` after the block.

    If `path` is in a bucket, the temporary path is on this machine, and uploaded.

    The block writes a file or a folder to the temporary path. An existing file at
    `path` is replaced. In an existing folder at `path`, files with the same names are
    replaced and other files stay. If the block raises an exception, `path` is
    unchanged.

    Args:
        path: path of the file or folder; its parent folder must exist.

    Raises:
        OSError: if the path cannot be written; the message names `path`.
    """
    if in_bucket(path):
        with tempfile.TemporaryDirectory() as folder, name_in_errors(path):
            yield Path(folder) / path.name
            upload(Path(folder) / path.name, path)
        return
    # a prefix, because NumPy and others look at the suffix
    partial = path.with_name(f"partial.{path.name}")
    with name_in_errors(path):
        remove(partial)
        try:
            yield partial
            if partial.is_dir() and path.is_dir():
                for file in partial.iterdir():
                    os.replace(file, path / file.name)
            else:
                os.replace(partial, path)
        finally:
            remove(partial)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file atomically, without changing the line endings of the text.

    Raises:
        OSError: if the file cannot be written; the message names `path`.
    """
    with replace(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Adds a path to the message of an OSError; that of a full disk names no path."""
    try:
        yield
    except OSError as error:
        reason = str(error.strerror or error).removeprefix(f"{path}: ")
        raise OSError(error.errno, f"{path}: {reason}") from error


def remove(path: Path) -> None:
    """Deletes a file, or a folder with its content, if it exists.

    Raises:
        OSError: if it cannot be deleted.
    """
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif in_bucket(path):
        cast(BucketPath, path).rmtree()
    else:
        shutil.rmtree(path)
