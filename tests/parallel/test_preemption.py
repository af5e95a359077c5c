"""A signal to one of several processes stops all of them, at the same step."""

import os
import signal
import subprocess
import sys

import pytest

from tests.parallel.test_processes import ended, free_port
from tests.xla_flags import DEVICES

# A run whose state only counts, from step 5. In one of its steps, it is in a native
# call, as in a compilation.
WORKER = """
import hashlib, os, sys, time, types
import jax.numpy as jnp
from logo_jax.parallel import processes
from logo_jax.training.logging.null_logger import NullLogger
from logo_jax.training.logging.train_log import TrainLog
from logo_jax.training.loop import train
from logo_jax.training.preemption import PreemptionHandler
from logo_jax.training.schedule import TrainingSchedule

index, count, port, rounds, slow = map(int, sys.argv[1:])

class Loader:
    waits, images_per_step = False, 1
    def batches(self, start, stop):
        yield from ((i, 0) for i in range(start, stop))

def train_step(state, examples, epoch):
    if examples + 1 == slow:
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
    time.sleep(0.01 * index)  # one process is slower than the other
    step = state.step + 1
    return types.SimpleNamespace(step=step), {"loss": jnp.float32(step)}

schedule = TrainingSchedule(10**6, 10, 1, 10**6, 0, False)
log = TrainLog(NullLogger(), NullLogger(), schedule)
flags = dict(coordinator=f"127.0.0.1:{port}", num_processes=count, process_id=index)
with processes.join_cluster(os.environ, quiet=True, **flags):
    with PreemptionHandler(grace=0.5, peers=processes.Peers()) as stop:
        state = types.SimpleNamespace(step=5)
        train(state, train_step, Loader(), schedule, log=log,
              checkpoints=NullLogger(), preemption=stop)
stop.leave()
"""
MINUTES = 10**9  # of hashing


def workers(rounds, slow=6):
    """Starts a process for each number of rounds of hashing in the step `slow`."""
    port = free_port()
    environ = os.environ | {"XLA_FLAGS": DEVICES.format(1)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = []
    for i, number in enumerate(rounds):
        arguments = map(str, (i, len(rounds), port, number, slow))
        command = [sys.executable, "-c", WORKER, *arguments]
        started.append(subprocess.Popen(command, env=environ, **pipes))
    for process in started:
        while process.stdout.readline() not in ("ready\n", ""):
            pass  # Gloo prints lines, too
    return started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rounds", "targets"),
    [
        ([MINUTES] * 4, (0, 1, 2, 3)),
        ([1, MINUTES, 1, MINUTES], (3,)),
        ([1, MINUTES], (0,)),  # the first waits for the second in the first step
    ],
)
def test_processes_end_if_some_of_them_compile_their_first_step(rounds, targets):
    started = workers(rounds)
    for i in targets:
        started[i].send_signal(signal.SIGTERM)
    line = "stopped by SIGTERM after step 5, which is saved; run the same command to "
    assert ended(started) == ([0] * len(rounds), [f"{line}resume"] * len(rounds))


@pytest.mark.slow
def test_all_processes_of_a_loop_stop_at_the_same_step():
    started = workers([1, 1], slow=30)
    started[1].send_signal(signal.SIGINT)
    codes, lines = ended(started)
    assert codes == [130, 130]
    assert lines[0] == lines[1]
    assert "stopped by SIGINT after step " in lines[0]


@pytest.mark.slow
def test_a_later_step_that_takes_long_in_one_process_is_waited_for():
    """Nothing of these steps is saved, so no process may end before they are."""
    started = workers([1, 3 * 10**6], slow=9)
    started[0].send_signal(signal.SIGTERM)
    codes, lines = ended(started)
    assert codes == [0, 0]
    assert lines[0] == lines[1]
    assert int(lines[0].split("after step ")[1].split(",")[0]) >= 9
