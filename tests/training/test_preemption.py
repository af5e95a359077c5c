"""SIGTERM and Ctrl-C end a run in order, also where no Python runs."""

import os
import signal
import subprocess
import sys

import pytest

from logo_jax.training.preemption import PreemptionHandler

NATIVE = """
import hashlib, sys
from logo_jax.training.preemption import PreemptionHandler
with PreemptionHandler(grace=0.1) as stop:
    stop.saved(5)
    if sys.argv[1] == "unsaved":
        stop.unsaved()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[2]))
    print("answered" if stop.requested() else "not told", flush=True)
    stop.leave()
"""


def told_in_native_code(saved, rounds, number=signal.SIGTERM):
    """Exit code and output of a process in one long call that is sent a signal."""
    command = [sys.executable, "-c", NATIVE, saved, str(rounds)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    return process.returncode, out, err


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_with_all_saved_a_call_of_minutes_does_not_keep_the_process(number, code):
    minutes = 10**9
    ended = told_in_native_code("saved", minutes, signal.Signals[number])
    words = f"stopped by {number} after step 5, which is saved; "
    assert ended == (code, "", words + "run the same command to resume\n")


def test_with_something_unsaved_the_main_thread_is_waited_for():
    assert told_in_native_code("unsaved", 10**6)[:2] == (0, "answered\n")


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_the_main_thread_learns_of_a_signal_and_leaves(number, code, capsys):
    with PreemptionHandler() as stop:
        stop.unsaved()
        assert not stop.requested()
        os.kill(os.getpid(), signal.Signals[number])
        assert stop.requested()
        stop.saved(7)
        with pytest.raises(SystemExit) as end:
            stop.leave()
    assert end.value.code == code
    assert f"stopped by {number} after step 7" in capsys.readouterr().err


def test_handlers_are_put_back(capsys):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with PreemptionHandler() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested()
        with pytest.raises(SystemExit):
            stop.leave()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert "before anything was saved" in capsys.readouterr().err
