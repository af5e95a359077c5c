"""SIGTERM and Ctrl-C end a run cleanly, even during calls of native code."""

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
    print("answered" if stop.requested() else "no signal", flush=True)
    stop.leave()
"""


def signal_in_native_code(saved, rounds, number=signal.SIGTERM):
    """Sends a signal to a process in a native call; returns exit code and output."""
    command = [sys.executable, "-c", NATIVE, saved, str(rounds)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    return process.returncode, out, err


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_if_the_state_is_saved_a_long_native_call_is_ended(number, code):
    minutes = 10**9
    ended = signal_in_native_code("saved", minutes, signal.Signals[number])
    words = f"stopped by {number} after step 5, which is saved; "
    assert ended == (code, "", words + "run the same command to resume\n")


def test_if_the_state_is_not_saved_the_main_thread_can_finish():
    assert signal_in_native_code("unsaved", 10**6)[:2] == (0, "answered\n")


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGINT", 130)])
def test_the_main_thread_receives_a_signal_and_exits(number, code, capsys):
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


def test_signal_handlers_are_restored(capsys):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with PreemptionHandler() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested()
        with pytest.raises(SystemExit):
            stop.leave()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert "before anything was saved" in capsys.readouterr().err
