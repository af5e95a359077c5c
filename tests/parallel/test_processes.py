"""Several processes: detection of a cluster, and equality with a single process."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from logo_jax.experiment import make_spec
from logo_jax.parallel import processes
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager, saved_steps
from tests.commands import test_main
from tests.xla_flags import DEVICES

arrays = pytest.fixture(name="arrays")(test_main.fixture_arrays.__wrapped__)

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
TPU = {"TPU_ML_PLATFORM": "JAX"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
CHANGES = {"batch_norm": "global"}


@pytest.mark.parametrize(
    ("environ", "cluster"),
    [
        ({}, None),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}, None),
        ({"OMPI_MCA_orte_hnp_uri": "1.0", "OMPI_COMM_WORLD_SIZE": "4"}, "ompi"),
        (TPU, "tpu"),
        (TPU | {"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu"),
        (TPU | {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        (TPU | {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "tpu"),
        (TPU | {"TPU_SKIP_MDS_QUERY": "1"}, None),
        (TPU | POD | {"TPU_WORKER_HOSTNAMES": "a,b"}, "tpu"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, None),
        (POD, None),
        (POD | {"JOB_COMPLETION_INDEX": "1"}, "kubernetes"),
    ],
)
def test_a_process_joins_a_cluster_that_started_several(environ, cluster):
    assert processes.detect_cluster(environ) == cluster
    assert processes.cluster_arguments(environ) == ({} if cluster else None)


def test_flags_take_precedence_over_the_cluster():
    assert processes.cluster_arguments(SLURM, num_processes=1) is None
    arguments = processes.cluster_arguments(SLURM, "10.0.0.1:1234", 4, 3)
    assert arguments == {
        "coordinator_address": "10.0.0.1:1234",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("a:1", None, None), "must be given together"),
        ((None, 2, None), "must be given together"),
        ((None, 2, 0), "must be given together"),
        (("a", 2, 0), "--coordinator=a must be"),
        (("a:0", 2, 0), "--coordinator=a:0 must be"),
        ((":1234", 2, 0), "--coordinator=:1234 must be"),
        (("a:1", 2, 2), "--process_id=2 must be"),
        (("a:1", 2, -1), "--process_id=-1 must be"),
    ],
)
def test_bad_flags_are_refused_by_name(flags, message):
    with pytest.raises(ValueError, match=message):
        processes.cluster_arguments({}, *flags)


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int


def test_each_processs_devices_are_together_in_the_mesh():
    owners = [0, 0, 1, 1, 0, 0, 1, 1]  # as in a slice of two hosts
    mesh = make_mesh([Device(i, owner) for i, owner in enumerate(owners)])
    assert [device.id for device in mesh.devices] == [0, 1, 4, 5, 2, 3, 6, 7]


@pytest.mark.slow
def test_two_processes_resume_a_run_of_one_and_resume_it_again_after_a_signal(
    arrays, tmp_path
):
    """The second process gets the signal when they have written a line of metrics.

    Both processes stop at the same step. The run that was stopped ends bit-equal to one
    that was not, which has the numbers of a single process, up to rounding.
    """
    changes = CHANGES | {"train.num_steps": 60, "monitor.knn_every_steps": 4}
    changes |= {"train.keep_every_steps": 4}
    config = test_main.tiny_config("cifar10_simsiam", "baseline", arrays, **changes)
    stopped, whole, single = (tmp_path / x for x in ("stopped", "whole", "single"))
    workdir.claim_workdir(stopped, config.to_dict())
    with pytest.raises(KeyboardInterrupt):
        test_main.run(config, stopped, until=3, num_devices=4)
    shutil.copytree(stopped, whole)
    before = len(test_main.records(stopped))

    started = start(arrays, [stopped, tmp_path / "other"], changes)
    with pytest.raises(KeyboardInterrupt):
        test_main.run(config, single, until=4, num_devices=4)
    while len(test_main.records(stopped)) <= before:
        assert started[0].poll() is None
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    codes, lines = ended(started)
    assert codes == [0, 0]
    assert lines[0] == lines[1]
    step = saved_steps(stopped / "checkpoints")[-1]
    assert 3 < step < 60
    assert f"stopped by SIGTERM after step {step}, which is saved" in lines[0]
    for folder in (stopped, whole):
        started = start(arrays, [folder, tmp_path / "other"], changes)
        codes, lines = ended(started)
        assert codes == [0, 0], lines
    assert not (tmp_path / "other").exists()  # only the first process writes
    manifests = [
        (folder / "checkpoints" / "60" / "state" / "manifest.json").read_bytes()
        for folder in (stopped, whole)
    ]
    assert manifests[0] == manifests[1]  # shapes and checksums of all arrays

    like = jax.eval_shape(make_spec(config, num_devices=4).init)
    states = []
    for folder in (whole, single):
        with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
            states.append(checkpoints.restore(4, like))
    for (path, a), b in zip(
        jax.tree.leaves_with_path(states[0]), jax.tree.leaves(states[1]), strict=True
    ):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg=where)
    rows, expected = map(test_main.records, (whole, single))
    for a, b in zip(rows, expected, strict=False):  # of steps 1 to 4
        for name in a.keys() - set(test_main.SPEED):
            assert a[name] == pytest.approx(b[name], abs=1e-4), name
    assert len(rows) > len(expected) >= 4


@pytest.mark.slow
def test_a_failing_process_ends_the_others(arrays, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / workdir.CONFIG_FILE).write_text(json.dumps({"seed": 0}))
    first, second = start(arrays, [tmp_path / "taken", tmp_path / "other"])
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 2
    assert "holds a run of another config" in errors
    second.communicate(timeout=60)  # a regular exit of jax would take 300 s
    assert second.returncode != 0


@pytest.mark.slow
def test_processes_with_different_images_are_refused(arrays, tmp_path):
    shutil.copytree(arrays, tmp_path / "copy")
    with np.load(arrays / "train.npz") as stored:
        images, labels = stored["images"].copy(), stored["labels"]
    images[3] = 0
    np.savez(tmp_path / "copy" / "train.npz", images=images, labels=labels)
    folders = [tmp_path / "a", tmp_path / "b"]
    codes, lines = ended(start(arrays, folders, paths=[arrays, tmp_path / "copy"]))
    assert codes[0] == 2
    assert codes[1] != 0  # it may end because the first process has ended
    assert "error: the images of process 1 are not those of process 0" in lines[0]
    assert not any(folder.exists() for folder in folders)


def start(arrays, folders, changes=CHANGES, paths=()):
    """Starts one process of the command line per folder, with two devices each.

    The images are in `arrays`, or in the folders `paths` of the processes.
    """
    fields = test_main.TINY | changes
    del fields["crops.local_crops"]
    flags = ["--config=configs/cifar10_simsiam.py:baseline"]  # before its fields
    flags += [f"--config.{name}={value}" for name, value in fields.items()]
    flags += [
        f"--coordinator=127.0.0.1:{free_port()}",
        f"--num_processes={len(folders)}",
    ]
    command = [sys.executable, "-m", "logo_jax.main", *flags]
    environ = os.environ | {"XLA_FLAGS": DEVICES.format(2)}
    return [
        subprocess.Popen(
            [
                *command,
                f"--process_id={i}",
                f"--workdir={folder}",
                f"--config.data.path={dict(enumerate(paths)).get(i, arrays)}",
            ],
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, folder in enumerate(folders)
    ]


def ended(started):
    """Returns the exit codes and the last lines of processes."""
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    lines = [error.strip().splitlines()[-1] for error in errors]
    return [process.returncode for process in started], lines


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


ALONE = """
import os, sys
from logo_jax.parallel import processes
processes.WAIT = 1
with processes.join_cluster(os.environ):
    pass
"""


def test_a_process_says_what_it_waits_for_and_ends_in_one_line():
    """Slurm's variables, as in a job's shell, in which no other task was started."""
    job = str(free_port())  # jax derives its port from it
    environ = os.environ | SLURM
    environ |= {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost"}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    group = "the other processes of slurm: this is process 0 of 2"
    assert done.stderr.splitlines() == [
        f"waiting for {group}; --num_processes=1 trains alone",
        f"error: after 1 s there is no answer from {group}; --num_processes=1 trains "
        "alone",
    ]
    assert done.returncode == 2
