"""Takes the place of all that writes, in processes that do not write."""

from collections.abc import Callable
from typing import Any, Self


class NullLogger:
    """Metric writer, progress and checkpoints of every process but the first.

    Every method takes any arguments, does nothing and returns (): there are no rows, no
    saved steps and no checkpoint to restore.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """There is nothing to close."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **named: ()
