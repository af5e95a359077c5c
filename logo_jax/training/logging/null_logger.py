"""Logger that does nothing, for the processes that write no files."""

from collections.abc import Callable
from typing import Any, Self


class NullLogger:
    """Replaces metric writer, progress and checkpoints in all but the first process.

    Every method accepts any arguments, does nothing and returns (), which means no
    rows, no saved steps and no checkpoint to restore.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Does nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **named: ()
