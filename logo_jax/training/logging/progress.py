"""Progress of a run on the terminal: one live line, or plain lines."""

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

from tqdm import tqdm


class Progress:
    """A live line on a terminal, plain lines elsewhere; a context manager.

    Args:
        total: updates in the whole run.
        initial: updates done before this process began.
        quiet: shows nothing but warnings.
        stream: where lines go; standard error if None.
        clock: seconds from any origin, for the time left.
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
        # a narrow terminal cuts the end of the line
        self._bar = tqdm(
            total=total,
            initial=initial,
            file=self._stream,
            disable=quiet or not self._stream.isatty(),
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}|{postfix}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self, step: int, **shown: float | str) -> None:
        """Shows a step, the latest numbers and the time left.

        Args:
            step: updates done so far.
            **shown: what to show by its name; `**{"images/s": 512.0}` works too.
        """
        left = tqdm.format_interval(self._seconds_left(step))
        words = [f"{left} left", *(f"{name} {_short(x)}" for name, x in shown.items())]
        if self._bar.disable:
            self.say("  ".join([f"step {step}/{self._total}", *words]))
        else:
            self._bar.set_postfix_str("  ".join(words), refresh=False)
            self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """Prints a line of its own, above the live line where there is one."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Prints a line of its own, also where `quiet`."""
        tqdm.write(text, file=self._stream)
        self._stream.flush()

    def _seconds_left(self, step: int) -> float:
        """By the speed since the first update; at the first one since the start."""
        now = self._clock()
        pace = (now - self._since) / max(step - self._first, 1)
        if not self._compiled:  # steps until the first update include compilation
            self._since, self._first, self._compiled = now, step, True
        return pace * (self._total - step)


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1e4:
        return f"{value:.0f}"
    return f"{value:.4g}"
