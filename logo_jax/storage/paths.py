"""Paths that a user gives: of this machine, or of a bucket (gs:// or s3://).

A path in a bucket is a `BucketPath`, which has the methods of `pathlib.Path` that this
library uses. So only code for which a bucket differs from a disk asks `in_bucket`: what
grows (`staged`), what replaces (`atomic`), what locks (`lease`), and what is read many
times (`copies`).
"""

import contextlib
import functools
import importlib.util
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple, cast

from etils.epath import gpath

# TensorFlow would be imported for buckets if it is installed (for `prepare`).
os.environ.setdefault("EPATH_USE_TF", "false")

PATIENCE = 20.0  # seconds until a bucket that does not answer is an error
# a scheme has two letters or more, because C:/ is a drive; `Path` keeps one slash of ://
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")


class _Store(NamedTuple):
    """A kind of bucket.

    Attributes:
        library: package that reads and writes it.
        extra: extra of this library that installs the package.
        probe: returns the coroutine of the cheapest request to a bucket.
    """

    library: str
    extra: str
    probe: Callable[[Any, str], Any]


_STORES = {
    "gs": _Store(
        "gcsfs", "gcs", lambda fs, bucket: fs._call("GET", "b/{}/o", bucket, **_ONE_KEY)
    ),
    "s3": _Store(
        "s3fs",
        "s3",
        lambda fs, bucket: fs._call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1),
    ),
}
_ONE_KEY = {"maxResults": 1, "json_out": True}
# packages whose errors are no OSErrors, although they are about requests
_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests"}


class BucketPath(gpath.PosixGPath):
    """A path of an object, or of the objects below a prefix, in a bucket.

    Folders exist if they have objects. Errors of requests are OSErrors.
    """

    def absolute(self) -> "BucketPath":
        """Returns the path itself."""
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        """Returns the path itself."""
        del strict
        return self

    def is_relative_to(self, *other: Any) -> bool:
        """Whether the path is in another one of a bucket."""
        return isinstance(other[0], BucketPath) and super().is_relative_to(*other)

    def exists(self) -> bool:
        """Whether there is such an object, or there are objects below the prefix."""
        with as_os_errors(self):
            return super().exists()

    def is_dir(self) -> bool:
        """Whether there are objects below the prefix."""
        with as_os_errors(self):
            return super().is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        with as_os_errors(self):
            return files_of(self).isfile(str(self))

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yields the files and folders in this folder."""
        with as_os_errors(self):
            paths = list(super().iterdir())
        # consoles create an empty object NAME/ for a folder
        yield from (path for path in paths if path.name and path != self)

    def rmtree(self, missing_ok: bool = False) -> None:
        """Deletes the objects below the prefix."""
        with as_os_errors(self):
            super().rmtree(missing_ok)

    def read_bytes(self) -> bytes:
        """Returns the content, in one request."""
        with as_os_errors(self):
            return files_of(self).cat_file(str(self))

    def read_text(self, encoding: str | None = None) -> str:
        """Returns the content as text, in UTF-8."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: bytes) -> int:
        """Replaces the object; other readers see the old or the new content."""
        with as_os_errors(self):
            files_of(self).pipe_file(str(self), data)
        return len(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None
    ) -> int:
        """Replaces the object by a text, in UTF-8."""
        del errors
        return self.write_bytes(data.encode(encoding or "utf-8"))


def in_bucket(path: Path) -> bool:
    """Whether a path is in a bucket."""
    return isinstance(path, BucketPath)


def as_path(given: str | Path) -> Path:
    """Returns a path that a user gave; one of a bucket if that can be reached.

    Every path that a user gives, and that may be in a bucket, passes through here.

    Raises:
        ValueError: as `parse_path`, or if the package for the bucket is missing, or the
            bucket does not exist, cannot be read or does not answer within seconds.
    """
    path = parse_path(given)
    if in_bucket(path):
        scheme, _, rest = str(path).partition("://")
        _reach(scheme, rest.partition("/")[0])
    return path


def parse_path(given: str | Path) -> Path:
    """Returns a path that a user gave, with a leading ~ expanded.

    >>> parse_path("~/runs") == Path.home() / "runs"
    True
    >>> str(parse_path("gs://bucket/runs") / "mine")
    'gs://bucket/runs/mine'

    Raises:
        ValueError: if it is a URL of something else than a bucket, or if ~ names a user
            whose home is unknown.
    """
    url = _URL.match(str(given))
    if url is None:
        return _of_disk(given)
    key = str(given)[url.end() :]
    if url[1] not in _STORES or not key:
        raise ValueError(
            f"{given} must be a path of this machine, or in a bucket, as gs://BUCKET/"
            "PATH or s3://BUCKET/PATH; copy or mount other things"
        )
    # It has the methods of a path that this library uses.
    return cast(Path, BucketPath(f"{url[1]}://{key}"))


def local_path(given: str | Path) -> Path:
    """Returns a path that a user gave and that must be on this machine.

    Raises:
        ValueError: if it is a URL, also of a bucket, or if ~ names a user whose home is
            unknown.
    """
    if _URL.match(str(given)):
        raise ValueError(
            f"{given} must be a path of this machine, not a URL; copy or mount what it "
            "names, and give the local path"
        )
    return _of_disk(given)


def parse_paths(given: str) -> list[Path]:
    """Returns the paths in a text in which commas divide them, also as a tuple.

    >>> [str(path) for path in parse_paths("('/a', '/b c')")]
    ['/a', '/b c']
    >>> [str(path) for path in parse_paths("/a,/b (1)")]
    ['/a', '/b (1)']

    If the whole text is a path on this machine that exists, its commas belong to it.

    Raises:
        ValueError: as `parse_path`.
    """
    if "," not in given or (not _URL.match(given) and _of_disk(given).exists()):
        return [parse_path(given)]
    text = given.strip()
    if text[0] + text[-1] in ("()", "[]"):
        text = text[1:-1]
    parts = (part.strip(" '\"") for part in text.split(","))
    return [parse_path(part) for part in parts if part]


def _of_disk(given: str | Path) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{given}: {error}; give the whole path") from error


def files_of(path: PurePath) -> Any:
    """Returns the file system of fsspec that has a path in a bucket."""
    return _files(str(path).partition(":")[0])


@functools.cache
def _files(scheme: str) -> Any:
    """Returns the file system for a scheme, "gs" or "s3".

    Its listings are not cached, because other processes write to the same folders.
    """
    # it would ask for the type of each bucket, by another protocol
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its errors are raised, too
    for name in ("gcs", "gs", "s3"):
        fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)
    return fsspec.filesystem(scheme)


@functools.cache
def _reach(scheme: str, bucket: str) -> None:
    """Raises an error within seconds if requests to a bucket would fail."""
    store, url = _STORES[scheme], f"{scheme}://{bucket}"
    if importlib.util.find_spec(store.library) is None:
        raise ValueError(
            f"{url} needs the package {store.library}; pip install "
            f"'logo_jax[{store.extra}]', or give a path of this machine"
        )
    errors: list[Exception] = [TimeoutError(f"no answer within {PATIENCE:.0f} s")]
    # The search for credentials cannot be stopped, but left alone.
    arguments = (store.probe, scheme, bucket, errors)
    thread = threading.Thread(target=_probe, args=arguments, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if errors:
        raise ValueError(
            f"{url} cannot be read ({_reason(errors[-1])}); check its name, the "
            "network and your credentials (docs/buckets.md), or give a path of this "
            "machine"
        ) from errors[-1]


def _probe(
    probe: Callable[[Any, str], Any], scheme: str, bucket: str, errors: list[Exception]
) -> None:
    from fsspec import asyn

    try:
        files = _files(scheme)
        asyn.sync(files.loop, probe, files, bucket)
        errors.clear()
    except Exception as error:  # of many libraries; all mean the same
        errors.append(error)


def _reason(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


@contextlib.contextmanager
def as_os_errors(path: PurePath) -> Iterator[None]:
    """Raises errors of the libraries for buckets as OSErrors that name the path."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        raise OSError(f"{path}: {_reason(error)}") from error
