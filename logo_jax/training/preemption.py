"""Preemption: on SIGTERM, Ctrl-C or a time limit the run saves its state and exits.

The signal handler only sets a flag, which the training loop checks between steps.
However, Python runs signal handlers only between its bytecode instructions, and
compilation is a single native call that may take minutes; the loop also does not check
the flag during an evaluation. Therefore a thread receives the signal, too. If the loop
does not respond within `GRACE` seconds and the newest state is on disk, the thread ends
the process. This happens before the first step and in evaluations, which start only
after the state has been saved.

Several processes must save the same step. The loop therefore stops when all processes
agree to, by an `Agreement` in each step. The threads pass a signal to one of them on to
all. They end their processes only if all of them vote for it, because each has its
newest state on disk and a loop that does not respond. A loop responds when an agreement
has returned; it may wait for processes that compile their first step. No loop waits for
the votes: one that responds, after its process has voted, takes steps that are computed
again.

`PreemptionHandler` is for a command, which is a process of its own, and
`InterruptHandler` for a program or a notebook that continues after the run.

Exit codes of a command: 0 after SIGTERM and at the time limit, because a run that a
scheduler stops has not failed; 130 after Ctrl-C, as shells expect, so that a script
that calls the command stops, too. A second Ctrl-C ends the process immediately.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Self

from logo_jax.parallel.processes import Peers

GRACE = 3.0
STOPPED = "stopped by"  # beginning of the last line that a stopped run prints
TIME_LIMIT = 255  # in place of a signal's number
_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "SIGINT"}
_CAUSES = _NAMES | {TIME_LIMIT: "the time limit"}  # of a stop


class PreemptionHandler:
    """Handles SIGTERM and Ctrl-C, and tracks whether the newest state is saved.

    This is a context manager that installs handlers of the two signals in the main
    thread. If it is never entered, a stop is never requested.

    Args:
        grace: time in seconds for the main thread to call `requested` after a signal.
        time_limit: time in seconds after which a stop is requested; None: no limit.
        peers: the other processes of the run; None if there are none.
    """

    def __init__(
        self,
        grace: float = GRACE,
        *,
        time_limit: float | None = None,
        peers: Peers | None = None,
    ):
        self._grace = grace
        self._time_limit = time_limit
        self._peers = peers
        self._cause = 0  # a key of _CAUSES if a stop is requested
        self._changed = threading.Condition()
        self._answers = self._unsaved = False
        self._step = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _NAMES}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        for number in _NAMES:
            signal.signal(number, self._handle)
        if self._time_limit is not None:
            self._timer = threading.Timer(self._time_limit, self._wake, (TIME_LIMIT,))
            self._timer.daemon = True
            self._timer.start()
        if self._peers:
            self._listener = threading.Thread(target=self._listen, daemon=True)
            self._listener.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._time_limit is not None:
            self._timer.cancel()
            self._timer.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        if self._peers:
            self._peers.announce(0)  # ends the listener
            self._listener.join()
        with self._changed:
            self._answers = True
            self._changed.notify_all()
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def requested(self, agree: Callable[[int], int] = int) -> bool:
        """Whether a stop is requested; if so, the caller must save and end the run.

        Args:
            agree: function from the number of this process's signal, 0 for none, to
                that of all processes (`processes.Agreement`); by default, this process
                decides.
        """
        given = self._cause
        agreed = agree(given)
        with self._changed:
            self._cause = agreed or self._cause
            self._answers = bool(given or agreed)
            self._changed.notify_all()
        return bool(agreed)

    def unsaved(self) -> None:
        """Records that the newest state is not on disk."""
        with self._changed:
            self._unsaved = True

    def saved(self, step: int) -> None:
        """Records that the newest state, of this step, is on disk."""
        with self._changed:
            self._step, self._unsaved = step, False
            self._changed.notify_all()

    def last_line(self, remedy: str = "run the same command") -> str:
        """The line that states what stopped the run, and after which step.

        Args:
            remedy: how to resume the run.
        """
        name = _CAUSES[self._cause]
        saved = f"after step {self._step}, which is saved"
        where = saved if self._step else "before anything was saved"
        return f"{STOPPED} {name} {where}; {remedy} to resume"

    def leave(self) -> NoReturn:
        """Prints the last line and exits with the signal's code.

        Several processes end when the first has saved. A second SIGTERM is ignored.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(self.last_line(), file=sys.stderr, flush=True)
        sys.exit(self._exit_code())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._cause = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _watch(self) -> None:
        while (received := os.read(self._reader, 1)) and received[0] not in _CAUSES:
            pass  # all signals with a Python handler are written to the pipe
        if not received:
            if self._peers:
                self._peers.vote(False)
            return
        # The handler has not run yet if the main thread is in native code.
        self._cause = received[0]
        if self._peers:
            self._peers.announce(self._cause)
        with self._changed:
            self._changed.wait_for(lambda: self._answers, self._grace)
            self._changed.wait_for(lambda: self._answers or not self._unsaved)
            ends = not self._answers
            if ends and not self._peers:
                self._leave_now()
        if self._peers and self._peers.vote(ends):
            self._leave_now()

    def _listen(self) -> None:
        """Treats a signal that another process announces like one to this process."""
        number = self._peers.announced() if self._peers else 0
        if number:
            self._wake(number)

    def _wake(self, number: int) -> None:
        os.write(self._writer, bytes([number]))

    def _leave_now(self) -> NoReturn:
        print(self.last_line(), file=sys.stderr, flush=True)
        for child in multiprocessing.active_children():
            child.kill()  # reader processes block SIGTERM
        if self._peers:
            self._peers.leave()
        os._exit(self._exit_code())

    def _exit_code(self) -> int:
        return 130 if self._cause == signal.SIGINT else 0


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
            for number in _NAMES:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._cause == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._cause = number
        signal.signal(number, self._before[number])
