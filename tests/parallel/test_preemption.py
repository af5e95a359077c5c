"""A signal to one of several processes stops all of them, at the same step."""

import os
import signal
import subprocess
import sys
import time

import pytest

from logo_jax.training.checkpoints.manager import saved_steps
from tests.commands import test_main
from tests.parallel.test_processes import free_port, start
from tests.xla_flags import DEVICES

arrays = pytest.fixture(name="arrays")(test_main.fixture_arrays.__wrapped__)

# A process in a native call, as in a compilation, or in a loop. It prints the number of
# its last turn of the loop.
WORKER = """
import hashlib, os, sys, time
from logo_jax.parallel import processes
from logo_jax.training.preemption import PreemptionHandler

index, count, port, rounds, turns = map(int, sys.argv[1:])
flags = dict(coordinator=f"127.0.0.1:{port}", num_processes=count, process_id=index)
with processes.join_cluster(os.environ, quiet=True, **flags):
    with PreemptionHandler(grace=0.5, peers=processes.Peers()) as stop:
        stop.saved(5)
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
        agreement = processes.Agreement()
        for turn in range(turns):
            stop.unsaved()
            if stop.requested(agreement):
                break
            time.sleep(0.01 * index)  # one process is slower than the other
        stop.saved(turn)
stop.leave()
"""
MINUTES = 10**9  # of hashing


def workers(rounds, turns=0):
    """Starts a process for each number of rounds of hashing."""
    port = free_port()
    environ = os.environ | {"XLA_FLAGS": DEVICES.format(1)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = []
    for i, number in enumerate(rounds):
        arguments = map(str, (i, len(rounds), port, number, turns))
        command = [sys.executable, "-c", WORKER, *arguments]
        started.append(subprocess.Popen(command, env=environ, **pipes))
    for process in started:
        while process.stdout.readline() not in ("ready\n", ""):
            pass  # Gloo prints lines, too
    return started


def ended(started):
    """Returns the exit codes and the last lines of processes."""
    try:
        errors = [process.communicate(timeout=60)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    lines = [error.strip().splitlines()[-1] for error in errors]
    return [process.returncode for process in started], lines


@pytest.mark.parametrize("targets", [(0,), (3,), (0, 1, 2, 3)])
def test_if_all_states_are_saved_long_native_calls_of_four_processes_end(targets):
    started = workers([MINUTES] * 4)
    for i in targets:
        started[i].send_signal(signal.SIGTERM)
    line = "stopped by SIGTERM after step 5, which is saved; run the same command to "
    assert ended(started) == ([0] * 4, [f"{line}resume"] * 4)


def test_all_processes_of_a_loop_stop_at_the_same_turn():
    started = workers([1, 1], turns=10**6)
    time.sleep(1.0)
    started[1].send_signal(signal.SIGINT)
    codes, lines = ended(started)
    assert codes == [130, 130]
    assert lines[0] == lines[1]
    assert "stopped by SIGINT after step " in lines[0]


def test_a_process_in_a_loop_waits_for_one_in_a_native_call():
    """The first is in its loop, so the other may not end without it."""
    started = workers([1, 3 * 10**6], turns=10**6)
    started[0].send_signal(signal.SIGTERM)
    codes, lines = ended(started)
    assert codes == [0, 0]
    assert lines[0] == lines[1]
    assert "after step 5," not in lines[0]


def test_a_run_of_two_processes_stops_at_one_step_and_resumes_bit_equal(
    arrays, tmp_path
):
    """The second process gets the signal when the run has written a line of metrics."""
    fields = {"train.num_steps": 60, "train.checkpoint_every_steps": 50}
    fields |= {"monitor.knn_every_steps": 0}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    started = start(arrays, [stopped, tmp_path / "other"], fields)
    while not ((stopped / "metrics.jsonl").exists() and test_main.records(stopped)):
        assert started[0].poll() is None
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    codes, lines = ended(started)
    assert codes == [0, 0]
    assert lines[0] == lines[1]
    (step,) = saved_steps(stopped / "checkpoints")
    assert step < 60
    assert f"stopped by SIGTERM after step {step}, which is saved" in lines[0]
    for folder in (stopped, whole):
        started = start(arrays, [folder, tmp_path / "other"], fields)
        assert ended(started)[0] == [0, 0]
    manifests = [
        (folder / "checkpoints" / "60" / "state" / "manifest.json").read_bytes()
        for folder in (stopped, whole)
    ]
    assert manifests[0] == manifests[1]  # shapes and checksums of all arrays
