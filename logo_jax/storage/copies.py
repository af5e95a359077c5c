"""Copies of the images in a bucket, on a disk of this machine.

Training reads each image in every epoch, which would cost as many requests. So images
are copied once, to $XDG_CACHE_HOME/logo_jax/buckets (~/.cache/logo_jax/buckets). Later
starts list the bucket and copy what has changed.
"""

import functools
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from logo_jax.storage.locks import one_at_a_time
from logo_jax.storage.paths import as_os_errors, as_path, files_of, in_bucket

_BATCH = 256  # files that are copied by concurrent requests
Forms = dict[str, list[Any]]  # size and checksum or version of each file, by name


def on_disk(path: Path) -> Path:
    """Returns the path itself, or that of its copy if it is in a bucket.

    The bucket is listed once in each process.

    Args:
        path: a file, or a folder, whose files are all copied.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: if the bucket cannot be read, or the disk is too small.
        OSError: if a file cannot be read or written.
    """
    return _copied(as_path(path)) if in_bucket(path) else path


def cache_folder() -> Path:
    """Returns the folder of the copies."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "logo_jax" / "buckets"


@functools.cache
def _copied(path: Path) -> Path:
    scheme, _, key = str(path).partition("://")
    target = cache_folder() / scheme / key
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    record = cache_folder() / "records" / f"{path.name}-{digest}.jsonl"
    with one_at_a_time(record.with_suffix(".lock")), as_os_errors(path):
        forms, place = _forms(path), path if path.is_dir() else path.parent
        if not forms:
            raise FileNotFoundError(f"{path} does not exist, or has no files")
        folder = target if place == path else target.parent
        _remove(folder, forms, target)
        old = _recorded(record)
        new = {
            name: form
            for name, form in forms.items()
            if old.get(name) != form or not (folder / name).is_file()
        }
        if new:
            _require_room(path, new, folder)
            _copy(place, new, folder, record)
    return target


def _forms(path: Path) -> Forms:
    """Lists the files of a folder, with their names in it, or a single file."""
    found = files_of(path).find(str(path), detail=True)
    root = str(path).partition("://")[2]
    forms = {}
    for name, info in found.items():
        inner = name.removeprefix(root).lstrip("/") or path.name
        if not name.endswith("/"):  # an empty object that stands for a folder
            forms[inner] = [info["size"], info.get("ETag") or info.get("etag")]
    return forms


def _remove(folder: Path, forms: Forms, target: Path) -> None:
    """Removes the files of a folder that are no longer in the bucket."""
    if folder == target and folder.is_dir():
        for file in folder.rglob("*"):
            if file.is_file() and file.relative_to(folder).as_posix() not in forms:
                file.unlink()


def _recorded(record: Path) -> Forms:
    if not record.exists():
        return {}
    lines = record.read_text().splitlines(keepends=True)
    # the last line may be incomplete
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return {name: form for name, form in rows}


def _require_room(path: Path, new: Forms, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size, free = sum(form[0] for form in new.values()), shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"{path} has {size / 2**30:.1f} GiB to copy, but {folder} has "
            f"{free / 2**30:.1f} GiB free; set XDG_CACHE_HOME to a folder of a larger "
            "disk, or mount the bucket and give the local path"
        )
    print(
        f"copying {len(new):,} files ({size / 2**30:.2f} GiB) of {path} to {folder}",
        file=sys.stderr,
    )


def _copy(
    place: Path, new: Mapping[str, list[Any]], folder: Path, record: Path
) -> None:
    """Copies files, which get their names when they are complete, and records them."""
    if record.exists():
        # without an incomplete last line, which a new line would continue
        os.truncate(record, record.read_bytes().rfind(b"\n") + 1)
    partial = record.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a copy that was killed
    partial.mkdir()
    names = list(new)
    batches = [names[i : i + _BATCH] for i in range(0, len(names), _BATCH)]
    for batch in tqdm(batches, "copying", disable=None, leave=False):
        for parent in {(folder / name).parent for name in batch}:
            parent.mkdir(parents=True, exist_ok=True)
        remote = [f"{place}/{name}" for name in batch]
        parts = [f"{partial}/{i}" for i in range(len(batch))]
        files_of(place).get(remote, parts)
        for part, name in zip(parts, batch, strict=True):
            os.replace(part, folder / name)
        with record.open("a") as file:
            file.writelines(f"{json.dumps([name, new[name]])}\n" for name in batch)
    partial.rmdir()
