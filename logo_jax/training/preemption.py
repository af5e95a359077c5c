"""Ends a run in order at SIGTERM or Ctrl-C: saved, one line said, nothing torn.

The handler sets a flag and no more; the training loop reads it between steps. But
Python runs handlers between its own instructions, and compiling is one call of minutes,
as an evaluation is one of the loop's. So a thread learns of the signal too, and ends
the process itself where the loop does not answer within `GRACE` seconds and all that
was learned is on disk: before the first step, and in an evaluation, which the loop
begins only once its state is saved.

Exit codes: SIGTERM 0, since a scheduler that stops a run is no failure of the run;
Ctrl-C 130, as shells expect, so that a script around the command stops too. A second
Ctrl-C ends the process at once.
"""

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, Self

GRACE = 3.0
STOPPED = "stopped by"  # how the last line of a run that stopped begins
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class PreemptionHandler:
    """Whether the run was told to stop, and what is on disk by then.

    A context manager that takes the two signals over, in the main thread; one that is
    never entered is never told to stop.

    Args:
        grace: seconds that the main thread has to answer.
    """

    def __init__(self, grace: float = GRACE):
        self._grace = grace
        self._signal: signal.Signals | None = None
        self._changed = threading.Condition()
        self._answered = self._unsaved = False
        self._step = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _EXIT_CODES}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        for number in _EXIT_CODES:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        with self._changed:
            self._answered = True
            self._changed.notify()
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def requested(self) -> bool:
        """Whether to stop; whoever is told so saves and ends the run."""
        with self._changed:
            self._answered = self._signal is not None
            self._changed.notify()
            return self._answered

    def unsaved(self) -> None:
        """Notes that more has been learned than is on disk."""
        with self._changed:
            self._unsaved = True

    def saved(self, step: int) -> None:
        """Notes that all that was learned, up to a step, is on disk."""
        with self._changed:
            self._step, self._unsaved = step, False
            self._changed.notify()

    def leave(self) -> NoReturn:
        """Ends the process in order."""
        print(self._last_words(), file=sys.stderr, flush=True)
        sys.exit(self._exit_code())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _watch(self) -> None:
        while (received := os.read(self._reader, 1)) and received[0] not in _EXIT_CODES:
            pass  # any signal with a handler in Python is told here
        if not received:
            return
        with self._changed:
            # while the main thread is in native code no handler has run yet
            self._signal = signal.Signals(received[0])
            self._changed.wait_for(lambda: self._answered, self._grace)
            self._changed.wait_for(lambda: self._answered or not self._unsaved)
            if not self._answered:
                self._leave_at_once()

    def _leave_at_once(self) -> NoReturn:
        print(self._last_words(), file=sys.stderr, flush=True)
        for child in multiprocessing.active_children():
            child.terminate()
        os._exit(self._exit_code())

    def _exit_code(self) -> int:
        return _EXIT_CODES[self._signal or signal.SIGTERM]

    def _last_words(self) -> str:
        name = (self._signal or signal.SIGTERM).name
        saved = f"after step {self._step}, which is saved"
        where = saved if self._step else "before anything was saved"
        return f"{STOPPED} {name} {where}; the same command goes on"
