"""A lock for which processes of one machine wait."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Waits until no other process holds the lock, and keeps others waiting.

    The operating system releases the lock when the process ends, however it ends. On a
    file system without locks nothing waits.

    Args:
        file: file of the lock; it and its folder are created if absent.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as held:
        with contextlib.suppress(OSError):
            if fcntl is not None:
                fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if fcntl is not None:
                    fcntl.flock(held, fcntl.LOCK_UN)
