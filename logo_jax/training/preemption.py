"""Preemption: at SIGTERM or Ctrl-C the run saves its state, prints a line and exits.

The signal handler only sets a flag, which the training loop reads between steps. But
Python runs handlers between its own instructions, and compilation is a single call of
minutes; so is an evaluation for the loop. Therefore a thread gets the signal too. It
ends the process if the loop does not answer within `GRACE` seconds and the newest state
is on disk: before the first step, and in an evaluation, which begins only after its
state is saved.

Exit codes: 0 after SIGTERM, because a scheduler that stops a run is no failure of the
run; 130 after Ctrl-C, as shells expect, so that a script around the command stops too.
A second Ctrl-C ends the process at once.
"""

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, Self

GRACE = 3.0
STOPPED = "stopped by"  # the last line of a stopped run begins with it
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class PreemptionHandler:
    """Receives SIGTERM and Ctrl-C, and knows whether the newest state is saved.

    A context manager that installs handlers of the two signals, in the main thread. If
    it is never entered, a stop is never requested.

    Args:
        grace: seconds for the main thread to call `requested` after a signal.
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
        """Whether to stop; if so, the caller must save the state and end the run."""
        with self._changed:
            self._answered = self._signal is not None
            self._changed.notify()
            return self._answered

    def unsaved(self) -> None:
        """Records that the newest state is not on disk."""
        with self._changed:
            self._unsaved = True

    def saved(self, step: int) -> None:
        """Records that the newest state, of this step, is on disk."""
        with self._changed:
            self._step, self._unsaved = step, False
            self._changed.notify()

    def leave(self) -> NoReturn:
        """Prints the last line and exits with the signal's code."""
        print(self._last_words(), file=sys.stderr, flush=True)
        sys.exit(self._exit_code())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _watch(self) -> None:
        while (received := os.read(self._reader, 1)) and received[0] not in _EXIT_CODES:
            pass  # every signal with a Python handler arrives here
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
        return f"{STOPPED} {name} {where}; run the same command to resume"
