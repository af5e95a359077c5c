"""Progress of a run: one line that is redrawn, or a line per update.

The line is redrawn on terminals and in notebooks.
"""

import io
import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from tqdm import tqdm

_BAR = "step {n}/{total} |{bar:10}|  {desc}"
_BAR_COLUMNS = len("step / ||  ") + 10  # of _BAR, without its numbers and {desc}


class Progress:
    """Prints the progress of a run; a context manager.

    On a terminal and in a notebook the progress is one line that is redrawn in place,
    and other lines are printed above it. Elsewhere every update is a line of its own.

    Args:
        total: number of steps of the whole run.
        initial: number of steps done before this process began.
        quiet: whether only warnings are printed.
        stream: stream to print to; standard error if None.
        clock: returns seconds since any origin; the time left is computed from it.
    """

    def __init__(
        self,
        total: int,
        initial: int = 0,
        quiet: bool = False,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._quiet = total, quiet
        self._stream = stream or sys.stderr
        self._clock = clock
        self._since, self._first = clock(), initial
        self._compiled = False
        self._bar = tqdm(
            total=total,
            initial=initial,
            file=self._stream,
            disable=quiet or not _can_redraw(self._stream),
            dynamic_ncols=True,
            mininterval=0,
            bar_format=_BAR,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self, step: int, **shown: float | str) -> None:
        """Shows the step, the time left and the latest numbers.

        A terminal that is too narrow shows only the first of the numbers.

        Args:
            step: number of steps done so far.
            **shown: numbers by their name; `**{"images/s": 512.0}` works too.
        """
        left = tqdm.format_interval(self._seconds_left(step))
        words = [f"{left} left", *(f"{name} {_short(x)}" for name, x in shown.items())]
        if self._bar.disable:
            self.say("  ".join([f"step {step}/{self._total}", *words]))
        else:
            room = _columns(self._stream) - _BAR_COLUMNS - len(f"{step}{self._total}")
            self._bar.set_description_str(_first_words(words, room), refresh=False)
            self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """Prints a line, above the line of progress if there is one."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Prints a line to the stream, even if the object was made with `quiet`."""
        tqdm.write(text, file=self._stream)
        self._stream.flush()

    def _seconds_left(self, step: int) -> float:
        """Estimates the time left in seconds from the speed since the first update.

        At the first update, the speed since the start is used.
        """
        now = self._clock()
        pace = (now - self._since) / max(step - self._first, 1)
        if not self._compiled:  # steps until the first update include compilation
            self._since, self._first, self._compiled = now, step, True
        return pace * (self._total - step)


def _can_redraw(stream: TextIO) -> bool:
    """Whether a stream shows a line again after a carriage return.

    The streams of a notebook's kernel do, though they are not terminals.
    """
    return stream.isatty() or type(stream).__module__.startswith("ipykernel.")


def _columns(stream: TextIO) -> int:
    """Width of a terminal; unlimited if it is unknown."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or sys.maxsize
    except (OSError, io.UnsupportedOperation):
        return sys.maxsize


def _first_words(words: list[str], room: int) -> str:
    """Joins as many phrases as fit by two spaces, to fewer than `room` characters.

    >>> _first_words(["00:18 left", "loss 1.2", "kNN 40 %"], room=21)
    '00:18 left  loss 1.2'
    """
    lines = itertools.accumulate(words, "{}  {}".format)
    return max((line for line in lines if len(line) < room), key=len, default="")


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1e4:
        return f"{value:.0f}"
    return f"{value:.4g}"
