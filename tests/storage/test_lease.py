"""The lease of a folder in a bucket."""

import threading

import pytest

from logo_jax.storage import lease
from logo_jax.training.workdir import WorkdirInUseError, lock_workdir, require_free


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.05)
    monkeypatch.setattr(lease, "LEASE", 0.6)
    monkeypatch.setattr(lease, "_POLL", 0.05)


def test_a_second_process_is_refused_and_a_released_folder_is_free(bucket):
    with lock_workdir(bucket):
        with pytest.raises(WorkdirInUseError, match="is in use by process"):
            require_free(bucket)
        with pytest.raises(WorkdirInUseError, match="is in use by process"):
            lock_workdir(bucket).__enter__()
    require_free(bucket)
    with lock_workdir(bucket):
        pass
    assert [x.name for x in (bucket / "lock").iterdir()] == ["000002"]


def test_without_lock_nothing_is_written(bucket):
    with lock_workdir(bucket, lock=False):
        assert not bucket.exists()


def test_the_lease_of_a_killed_process_is_taken_and_that_process_must_stop(bucket):
    folder = bucket / "lock"
    killed = lease._Lease(folder, 1, "process 1 on a")
    assert killed.create()  # and never renews
    with lease.hold(folder, "process 2 on b"):
        with pytest.raises(lease.LeaseLostError, match="process 2 on b has taken"):
            killed.require("run")
        lease.require_held(bucket / "metrics.jsonl")
        lease._held[str(folder)] = killed  # as in the process that was suspended
        with pytest.raises(lease.LeaseLostError):
            lease.require_held(bucket / "metrics.jsonl")
        lease.require_held(bucket.parent / "another")


def test_a_process_that_saw_a_renewal_takes_the_lease_after_the_holder_was_killed(
    bucket,
):
    """As in a notebook, in which each call to train is the same process."""
    folder = bucket / "lock"
    killed = lease._Lease(folder, 1, "process 1 on a")
    assert killed.create()
    found = lease._newest(folder)
    lease._watched[str(folder)] = found._replace(text="an older text"), 0.0
    with lease.hold(folder, "process 2 on b"):
        pass


def test_one_of_several_processes_gets_a_free_lease(bucket):
    leases = [lease._Lease(bucket / "lock", 1, f"process {i}") for i in range(4)]
    won: list[bool] = []
    threads = [
        threading.Thread(target=lambda x=x: won.append(x.create())) for x in leases
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, False, True]


def test_a_waiting_process_gets_the_lease_when_it_is_released(bucket):
    held, taken = threading.Event(), threading.Event()

    def wait():
        held.wait()
        with lease.hold(bucket / "lock", "second", wait=True):
            taken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    with lease.hold(bucket / "lock", "first"):
        held.set()
        assert not taken.wait(0.5)
    thread.join()
    assert taken.is_set()
