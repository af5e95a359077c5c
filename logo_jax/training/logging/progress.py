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
LONG = 3600.0  # seconds; a line states how long a run takes that takes longer


class Progress:
    """Prints the progress of a run; a context manager.

    On a terminal and in a notebook the progress is one line that is redrawn in place,
    and other lines are printed above it. Elsewhere every update is a line of its own.

    Args:
        total: number of steps of the whole run.
        initial: number of steps done before this process began.
        quiet: whether only warnings are printed.
        advice: end of the line that states how long a long run takes.
        stream: stream to print to; standard error if None.
        clock: returns seconds since any origin; the time left is computed from it.
    """

    def __init__(
        self,
        total: int,
        initial: int = 0,
        quiet: bool = False,
        *,
        advice: str = "",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._quiet, self._advice = total, quiet, advice
        self._stream = stream or sys.stderr
        self._clock = clock
        self._since: float | None = None  # when step `_first` was done
        self._first, self._is_told = initial, False
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

    def done(self, step: int) -> None:
        """Notes that a step is done; the time left is computed from the first call.

        So it does not include the compilation, which is before the first step is done.
        Two steps later, a line is printed if the run will take more than an hour.

        Args:
            step: number of steps done so far.
        """
        if self._since is None:
            self._since, self._first = self._clock(), step
        elif not self._is_told and step >= self._first + 2:
            self._is_told, left = True, self._seconds_left(step) or 0.0
            if left > LONG:
                each = left / (self._total - step)
                hours = f"about {left / 3600:.3g} hours left, {each:.3g} s per step"
                self.say("; ".join(filter(None, (hours, self._advice))))

    def update(self, step: int, **shown: float | str) -> None:
        """Shows the step, the time left, if it is known, and the latest numbers.

        A terminal that is too narrow shows only the first of the numbers.

        Args:
            step: number of steps done so far.
            **shown: numbers by their name; `**{"images/s": 512.0}` works too.
        """
        words = [f"{name} {_short(x)}" for name, x in shown.items()]
        if (left := self._seconds_left(step)) is not None:
            words.insert(0, f"{tqdm.format_interval(left)} left")
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

    def _seconds_left(self, step: int) -> float | None:
        """Estimates the time left in seconds; None until two steps are done."""
        if self._since is None or step <= self._first:
            return None
        pace = (self._clock() - self._since) / (step - self._first)
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
