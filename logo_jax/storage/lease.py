"""The lock of a folder in a bucket: a lease, which its holder renews.

A bucket has no locks that end with a process. But it can create an object on the
condition that there is none (GCS: generation match 0; S3: If-None-Match: *). A lease is
an object FOLDER/NUMBER. Its holder is the process that has created the object with the
highest number, and rewrites it every `RENEWAL` seconds with another count. A process
that has watched the newest object for `LEASE` seconds without a change, or that finds
it released, creates the next number; of several processes one succeeds. No clocks of
different machines are compared.

A process that was suspended for longer than `LEASE` may have lost its lease to another
one. So it calls `require_held` before it writes, and stops if there is a higher number.
"""

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from logo_jax.storage.paths import as_os_errors, files_of

RENEWAL = 10.0  # seconds between two renewals
LEASE = 30.0  # seconds without a renewal after which another process may take over
_POLL = 2.0  # seconds between two looks at the lease of another process
_RELEASED = "released"


class InUseError(Exception):
    """Another process holds the lease; the message names it."""


class LeaseLostError(OSError):
    """Another process has taken over the lease of this one."""


class _Found(NamedTuple):
    """The newest lease: its number, and the content of its object."""

    number: int
    text: str


_watched: dict[str, tuple[_Found, float]] = {}  # when a content was first seen
_held: dict[str, "_Lease"] = {}


@contextlib.contextmanager
def hold(folder: Path, holder: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lease of a folder in a bucket.

    Args:
        folder: folder of the lease's objects.
        holder: description of this process, for messages of other processes.
        wait: whether to wait for as long as another process holds the lease.

    Raises:
        InUseError: if another process holds the lease.
        OSError: if the bucket cannot be read or written.
    """
    lease = _taken(folder, holder, wait)
    _held[str(folder)] = lease
    try:
        with lease.renewed():
            yield
    finally:
        del _held[str(folder)]


def require_free(folder: Path, *, wait: bool = False) -> int:
    """Waits until the newest lease is released or not renewed; returns its number.

    Raises:
        InUseError: if another process renews the lease, and `wait` is False.
        OSError: if the bucket cannot be read.
    """
    url, first = str(folder), True
    while True:
        found = _newest(folder)
        if found is None or found.text == _RELEASED:
            return found.number if found else 0
        seen, since = _watched.get(url, (found, time.monotonic()))
        # what an earlier call has seen may be older than the end of its holder
        renewed = seen.number == found.number and seen != found and not first
        if renewed and not wait:
            raise InUseError(json.loads(found.text)["holder"])
        if seen != found:
            since = time.monotonic()
        _watched[url] = found, since
        if time.monotonic() - since >= LEASE:
            return found.number
        if first:
            logging.getLogger(__name__).warning(
                "waiting %.0f s to see whether %s, which has the lease of %s, still "
                "runs",
                LEASE,
                json.loads(found.text)["holder"],
                folder.parent,
            )
            first = False
        time.sleep(_POLL)


def require_held(path: Path) -> None:
    """Raises an error if a lease of this process for a folder of `path` was lost.

    Raises:
        LeaseLostError: if another process has taken it over.
        OSError: if the bucket cannot be read.
    """
    for folder, lease in list(_held.items()):
        if path.is_relative_to(lease.folder.parent):
            lease.require(folder)


class _Lease:
    """A lease of this process."""

    def __init__(self, folder: Path, number: int, holder: str):
        self.folder = folder
        self._number = number
        self._content = {"holder": holder, "id": uuid.uuid4().hex, "renewals": 0}

    @property
    def file(self) -> Path:
        """The object of the lease."""
        return self.folder / f"{self._number:06d}"

    def create(self) -> bool:
        """Creates the object; returns False if another process was faster."""
        text = json.dumps(self._content)
        try:
            with as_os_errors(self.file):
                files = files_of(self.file)
                files.pipe_file(str(self.file), text.encode(), mode="create")
        except FileExistsError:
            pass  # also if the answer to a successful request was lost, and it repeated
        except OSError as error:
            if "ConditionalRequestConflict" not in str(error):
                raise
        return _newest(self.folder) == _Found(self._number, text)

    def require(self, name: str) -> None:
        """Raises an error if the object is not the newest."""
        found = _newest(self.folder)
        if found and found.number > self._number:
            raise LeaseLostError(
                f"{name}: {_holder(found)} has taken over this run, because this "
                f"process did not renew its lease for {LEASE:.0f} s; nothing more is "
                "written by this one"
            )

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the lease in a thread, and releases it at the end."""
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(ended.wait,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(OSError):  # else it ends after LEASE seconds
                self.require(str(self.folder))
                self.file.write_text(_RELEASED)

    def _renew(self, ended: Callable[[float], bool]) -> None:
        while not ended(RENEWAL):
            self._content["renewals"] += 1
            # An error here is no error yet: the next renewal may succeed, and
            # `require_held` finds out whether the lease was lost.
            with contextlib.suppress(OSError):
                self.require(str(self.folder))
                self.file.write_text(json.dumps(self._content))


def _taken(folder: Path, holder: str, wait: bool) -> _Lease:
    while True:
        number = require_free(folder, wait=wait) + 1
        lease = _Lease(folder, number, holder)
        if lease.create():
            for old in _numbers(folder):
                if old < number:
                    (folder / f"{old:06d}").unlink(missing_ok=True)
            return lease


def _newest(folder: Path) -> _Found | None:
    while numbers := _numbers(folder):
        # it may have been deleted in the meantime, because there is a newer one
        with contextlib.suppress(FileNotFoundError):
            return _Found(numbers[-1], (folder / f"{numbers[-1]:06d}").read_text())
    return None


def _numbers(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def _holder(found: _Found) -> str:
    return "a process" if found.text == _RELEASED else json.loads(found.text)["holder"]
