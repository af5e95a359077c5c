"""Files that grow: written on disk, and uploaded whole if their folder is in a bucket.

An object cannot be appended to. So the files of a run that grow are in a temporary
folder of this machine, and are uploaded from there: before each checkpoint, at the end,
and in between at intervals in a thread. A run that is killed loses the rows since the
last upload, which are those that the resumed run measures again, because they are later
than its newest checkpoint.
"""

import contextlib
import tempfile
import threading
import time
from pathlib import Path

from logo_jax.storage import lease
from logo_jax.storage.paths import as_os_errors, files_of, in_bucket

INTERVAL = 30.0  # seconds between two uploads, or more:
SHARE = 0.05  # of the time at most is spent on uploads between checkpoints


class StagedFolder:
    """A folder on disk whose files are uploaded to another folder, or that folder.

    Args:
        folder: the folder that is to have the files. If it is on this machine, the
            files are written there, and nothing is uploaded.
    """

    def __init__(self, folder: Path):
        self._target = folder
        self._sizes: dict[str, tuple[int, int]] = {}
        self._uploading = threading.Lock()
        self._closed = threading.Event()
        self._held = contextlib.ExitStack()
        self.local = folder
        if in_bucket(folder):
            self.local = Path(self._held.enter_context(tempfile.TemporaryDirectory()))
            threading.Thread(target=self._upload_often, daemon=True).start()

    def upload(self) -> None:
        """Uploads the files that have changed; returns when all are in the bucket.

        Raises:
            OSError: if a file cannot be written, or the lease of the folder was lost.
        """
        if not in_bucket(self._target):
            return
        with self._uploading:
            lease.require_held(self._target)
            for file in sorted(x for x in self.local.rglob("*") if x.is_file()):
                name = file.relative_to(self.local).as_posix()
                stat = file.stat()
                if self._sizes.get(name) != (stat.st_size, stat.st_mtime_ns):
                    upload(file, self._target / name)
                    self._sizes[name] = stat.st_size, stat.st_mtime_ns

    def close(self) -> None:
        """Uploads the files for the last time, and removes those of this machine.

        Raises:
            OSError: as `upload`.
        """
        self._closed.set()
        with self._held:
            self.upload()

    def _upload_often(self) -> None:
        pause = INTERVAL
        while not self._closed.wait(pause):
            began = time.monotonic()
            # The upload before the next checkpoint raises the error if it persists.
            with contextlib.suppress(OSError):
                self.upload()
            pause = max(INTERVAL, (time.monotonic() - began) / SHARE)


def upload(source: Path, target: Path) -> None:
    """Uploads a file of this machine, or all files of a folder.

    Raises:
        OSError: if an object cannot be written; each one is replaced as a whole.
    """
    if source.is_dir():
        for file in sorted(x for x in source.rglob("*") if x.is_file()):
            upload(file, target / file.relative_to(source).as_posix())
        return
    with as_os_errors(target):
        files_of(target).put_file(str(source), str(target))
