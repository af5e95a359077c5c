"""Preemption: on SIGTERM or Ctrl-C the run saves its state, prints a line and exits.

The signal handler only sets a flag, which the training loop checks between steps.
However, Python runs signal handlers only between its bytecode instructions, and
compilation is a single native call that may take minutes; the loop also does not check
the flag during an evaluation. Therefore a thread receives the signal, too. If the loop
does not respond within `GRACE` seconds and the newest state is on disk, the thread ends
the process. This happens before the first step and in evaluations, which start only
after the state has been saved.

`PreemptionHandler` is for a command, which is a process of its own, and
`InterruptHandler` for a program or a notebook that continues after the run.

Exit codes of a command: 0 after SIGTERM, because a run that a scheduler stops has not
failed; 130 after Ctrl-C, as shells expect, so that a script that calls the command
stops, too. A second Ctrl-C ends the process immediately.
"""

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, Self

GRACE = 3.0
STOPPED = "stopped by"  # beginning of the last line that a stopped run prints
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


class PreemptionHandler:
    """Handles SIGTERM and Ctrl-C, and tracks whether the newest state is saved.

    This is a context manager that installs handlers of the two signals in the main
    thread. If it is never entered, a stop is never requested.

    Args:
        grace: time in seconds for the main thread to call `requested` after a signal.
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
        """Whether a stop is requested; if so, the caller must save and end the run."""
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

    def last_line(self, remedy: str = "run the same command") -> str:
        """The line that states which signal stopped the run, and after which step.

        Args:
            remedy: how to resume the run.
        """
        name = (self._signal or signal.SIGTERM).name
        saved = f"after step {self._step}, which is saved"
        where = saved if self._step else "before anything was saved"
        return f"{STOPPED} {name} {where}; {remedy} to resume"

    def leave(self) -> NoReturn:
        """Prints the last line and exits with the signal's code."""
        print(self.last_line(), file=sys.stderr, flush=True)
        sys.exit(self._exit_code())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _watch(self) -> None:
        while (received := os.read(self._reader, 1)) and received[0] not in _EXIT_CODES:
            pass  # all signals with a Python handler are written to the pipe
        if not received:
            return
        with self._changed:
            # The handler has not run yet if the main thread is in native code.
            self._signal = signal.Signals(received[0])
            self._changed.wait_for(lambda: self._answered, self._grace)
            self._changed.wait_for(lambda: self._answered or not self._unsaved)
            if not self._answered:
                self._leave_now()

    def _leave_now(self) -> NoReturn:
        print(self.last_line(), file=sys.stderr, flush=True)
        for child in multiprocessing.active_children():
            child.terminate()
        os._exit(self._exit_code())

    def _exit_code(self) -> int:
        return _EXIT_CODES[self._signal or signal.SIGTERM]


class InterruptHandler(PreemptionHandler):
    """Handles Ctrl-C and SIGTERM in a program that continues after the run.

    This is a context manager. The first signal requests a stop; a second one has the
    effect that it has outside the context, such as KeyboardInterrupt. When the context
    is left, the previous handlers are restored, and a SIGTERM is sent again, so that
    the program ends as it would have ended, but after the state has been saved. In
    threads other than the main thread, in which Python does not allow signal handlers,
    a stop is never requested.
    """

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in _EXIT_CODES:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._signal is signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = signal.Signals(number)
        signal.signal(number, self._before[number])
