"""Batches depend only on seed and step, not on how they are read."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from logo_jax.data.eval_crops import read_all
from logo_jax.data.loader import OnDeviceLoader, StepReader, StreamingLoader
from logo_jax.data.prefetch import read_ahead
from logo_jax.data.sampler import epoch_order, ids_of_step
from logo_jax.data.sources.folder import load_folder
from logo_jax.parallel.mesh import batch_sharding, make_mesh, replicate
from tests.data.pictures import write_folder

CANVAS = (16, 20)  # smaller than the images
BATCH = 4
STEPS = 6  # with 11 images: three epochs of two steps


@pytest.fixture(name="source", scope="module")
def fixture_source(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return load_folder(write_folder(root, {"a": 6, "b": 5}))[0]


def sharding(seeds=(3,)):
    return batch_sharding(make_mesh(jax.devices()[:4]), len(seeds) > 1)


def streamed(source, seeds=(3,), max_corrupt=0.0, **how):
    return StreamingLoader(
        StepReader(source, CANVAS, BATCH, seeds), sharding(seeds), max_corrupt, **how
    )


def resident(source, seeds=(3,)):
    stored = read_all(source, CANVAS, max_corrupt=0)
    mesh = make_mesh(jax.devices()[:4])
    return OnDeviceLoader(*replicate(stored, mesh), BATCH, seeds, sharding(seeds))


def batches_of(loader, start=0, stop=STEPS):
    return jax.device_get(list(loader.batches(start, stop)))


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_streamed_and_resident_batches_are_the_same(source, seeds):
    found = batches_of(streamed(source, seeds))
    assert_same(found, batches_of(resident(source, seeds)))
    examples, epoch = found[4]
    assert epoch == 2
    shape = (BATCH,) if len(seeds) == 1 else (2, BATCH)
    assert examples.images.shape == (*shape, *CANVAS, 3)
    assert examples.sizes.shape == (*shape, 2)
    np.testing.assert_array_equal(examples.labels, examples.ids >= 6)  # class b


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"threads": 1}, {"threads": 5}, {"workers": 2}])
def test_threads_and_processes_change_nothing(source, how):
    assert_same(batches_of(streamed(source, **how)), batches_of(streamed(source)))


def test_any_step_can_be_the_first(source):
    whole = batches_of(streamed(source))
    for start in (1, 2, 5):
        assert_same(batches_of(streamed(source), start), whole[start:])


def test_an_epoch_has_every_image_once_except_for_the_remainder():
    for epoch in range(3):
        steps = [ids_of_step(2 * epoch + i, (3,), 11, BATCH) for i in range(2)]
        ids = np.concatenate([ids for ids, _ in steps])
        np.testing.assert_array_equal(ids, epoch_order(3, epoch, 11)[:8])
        assert {int(e) for _, e in steps} == {epoch}


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_the_shares_of_several_processes_are_the_batch(source, seeds):
    whole = StepReader(source, CANVAS, BATCH, seeds)(3)
    parts = [StepReader(source, CANVAS, BATCH, seeds, (i, 2))(3) for i in range(2)]
    axis = len(seeds) - 1
    for shares, field in zip(
        zip(*(jax.tree.leaves(part[:2]) for part in parts), strict=True),
        jax.tree.leaves(whole[:2]),
        strict=True,
    ):
        np.testing.assert_array_equal(np.concatenate(shares, axis), field)


def end_at_five(i):
    if i == 5:
        os._exit(1)
    return i


def pid_of(i):
    del i
    return os.getpid()


@pytest.mark.slow
def test_reader_processes_outlive_the_signals_of_a_terminal_or_a_scheduler():
    reading = read_ahead(pid_of, range(200), workers=2)
    pids = {next(reading) for _ in range(2)}
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert {*reading} == pids  # 200 are more than are read ahead
    assert len(pids) == 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint(
        {signal.SIGINT, signal.SIGTERM}
    )


@pytest.fixture
def reader_processes():
    """Returns a function that lists the processes that this test has started.

    Another test of this pytest process may have left some: joblib keeps its own.
    """
    others = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - others


def test_the_end_of_a_reader_process_is_raised_as_an_error(reader_processes):
    numbers = read_ahead(end_at_five, range(1000), workers=1)
    with pytest.raises(ChildProcessError, match="a process that reads images failed: "):
        list(numbers)
    assert not reader_processes()


@pytest.mark.slow
def test_a_stopped_reading_leaves_no_process_and_no_thread(source, reader_processes):
    before = set(threading.enumerate())
    for how in ({"threads": 2}, {"workers": 2}):
        batches = streamed(source, **how).batches(0, 1000)
        next(batches)
        batches.close()
        assert not reader_processes()
        left = [t for t in threading.enumerate() if t not in before and not t.daemon]
        for thread in left:
            thread.join(timeout=10)
        assert not any(thread.is_alive() for thread in left)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"threads": 2}, {"workers": 2}])
def test_a_damaged_file_is_named_and_skipped_up_to_the_limit(
    tmp_path, caplog, how, reader_processes
):
    source = load_folder(write_folder(tmp_path, {"a": 6, "b": 5}))[0]
    damaged = tmp_path / "b" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    found = batches_of(streamed(source, max_corrupt=0.1, **how))
    assert len(found) == STEPS
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{damaged}: " in line
    with pytest.raises(ValueError, match=r"1 images .*more than 5.00% of 11.*1\.png"):
        batches_of(streamed(source, max_corrupt=0.05, **how))
    assert not reader_processes()
    assert len(caplog.records) == 1  # it is not named again


KILLED = """
import os, signal, sys
from logo_jax.data.prefetch import read_ahead

if __name__ == "__main__":
    for pid in read_ahead(pid_of, range(10_000), workers=2):
        print(pid, flush=True)  # pid of a worker
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "worker.py").write_text(
        "import os\n\n\ndef pid_of(i):\n    return os.getpid()\n"
    )
    script = tmp_path / "killed.py"
    script.write_text("from worker import pid_of\n" + KILLED)
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
        timeout=60,  # expires if a worker survives, because it keeps the pipes open
    )
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout.split()[0]) != os.getpid()


def fail_as_if_full(_):
    """As a reader process fails if /dev/shm is full, measured with one of 64 kB."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_shared_memory_is_named_with_the_remedy():
    reading = read_ahead(fail_as_if_full, range(3), workers=1)
    with pytest.raises(OSError, match=r"/dev/shm, .* is full; enlarge it.*workers=0"):
        list(reading)
    with pytest.raises(OSError, match="No space left on device") as error:
        list(read_ahead(fail_as_if_full, range(3), threads=1))
    assert "/dev/shm" not in str(error.value)
