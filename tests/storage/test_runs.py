"""Runs in a bucket: the same as on disk, also after a kill."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import logo_jax
from logo_jax.configs import load
from logo_jax.runs.training import open_run
from logo_jax.storage import staged
from logo_jax.training import atomic
from logo_jax.training.checkpoints.manager import CheckpointManager, saved_steps
from logo_jax.training.logging.metric_writer import MetricWriter, read_rows
from logo_jax.training.preemption import PreemptionHandler
from tests.backbones import CHEAP

FIELDS = CHEAP | {
    "data.batch_size": 8,
    "batch_norm": "per_device",
    "method.queue_size": 16,
    "train.num_steps": 4,
    "train.log_every_steps": 1,
    "train.checkpoint_every_steps": 2,
    "monitor.trivial_baselines": False,
    "monitor.knn_every_steps": 4,
    "monitor.knn": ((3, 0.07),),
}


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The config and the folder of a run on disk that was not interrupted."""
    tmp_path = tmp_path_factory.mktemp("disk")
    rng = np.random.default_rng(0)
    for name, count in (("train", 16), ("test", 8)):
        images = rng.integers(0, 256, (count, 20, 20, 3), np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(count) % 2)
    data = {"data.source": "npz", "data.path": str(tmp_path)}
    config = load("quickstart:baseline", FIELDS | data).to_dict()
    whole = tmp_path / "run"
    with open_run(config, whole, quiet=True) as run:
        run.train(PreemptionHandler())
    return config, whole


@pytest.mark.slow
def test_a_run_stopped_and_resumed_in_a_bucket_equals_one_on_disk(bucket, on_disk):
    config, whole = on_disk
    with open_run(config, bucket, quiet=True) as run:
        run.train(_StopAt(3))
    assert saved_steps(bucket / "checkpoints") == [2, 3]
    (bucket / "checkpoints" / "3" / "commit_success.txt").unlink()  # as after a kill
    with open_run(config, bucket, quiet=True) as run:
        run.train(PreemptionHandler())

    manifest = "checkpoints/4/state/manifest.json"
    assert (bucket / manifest).read_text() == (whole / manifest).read_text()
    for name in ("config.json", "data.json"):
        assert (bucket / name).read_text() == (whole / name).read_text()
    ours, theirs = (
        [{k: x for k, x in row.items() if k not in TIMES} for row in read_rows(file)]
        for file in (bucket / "metrics.jsonl", whole / "metrics.jsonl")
    )
    assert ours == theirs
    events = [x.name for x in (bucket / "tensorboard").iterdir()]
    assert len(events) == 2  # one of each start

    result = logo_jax.Run(bucket).evaluate("knn", knn=((3, 0.07),))
    stored = json.loads(
        (bucket / result["file"].removeprefix(f"{bucket}/")).read_text()
    )
    assert stored["values"] == result["values"]
    features = logo_jax.load_encoder(str(bucket))(np.zeros((2, 20, 20, 3), np.uint8))
    assert features.shape == (2, 8)


TIMES = ("images_per_second", "data_wait_percent")


class _StopAt(PreemptionHandler):
    """Requests a stop after some steps."""

    def __init__(self, steps: int):
        super().__init__()
        self._left = steps

    def requested(self, *arguments) -> bool:
        if arguments:  # between two steps
            self._left -= 1
        return self._left <= 0


@pytest.mark.slow
def test_a_checkpoint_that_was_killed_at_any_object_is_none(bucket):
    state = {"a": jnp.arange(6.0), "b": jnp.ones((2, 3))}
    with CheckpointManager(bucket) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, state)
    two = {x: x.read_bytes() for x in _objects(bucket / "2")}
    order = [  # in which they are written
        "_CHECKPOINT_METADATA",
        "state/arrays.safetensors",
        "state/manifest.json",
        "state/commit_success.txt",
        "commit_success.txt",
    ]
    assert sorted(order) == sorted(str(x.relative_to(bucket / "2")) for x in two)
    for written in (1, 2, 4):
        for path in _objects(bucket / "2"):
            path.unlink()
        for name in order[:written]:
            (bucket / "2" / name).write_bytes(two[bucket / "2" / name])
        with CheckpointManager(bucket) as checkpoints:
            assert checkpoints.steps() == saved_steps(bucket) == [1]
            step, found = checkpoints.restore_latest(state)
            assert step == 1
            np.testing.assert_array_equal(found["a"], state["a"])
            checkpoints.save(2, state)
            checkpoints.wait()
            assert checkpoints.steps() == [1, 2]


def _objects(folder):
    found = []
    for path in folder.iterdir():
        found += _objects(path) if path.is_dir() else [path]
    return found


def test_older_checkpoints_are_deleted(bucket):
    with CheckpointManager(bucket) as checkpoints:
        for step in range(5):
            checkpoints.save(step, {"a": jnp.ones(2)})
    assert sorted(x.name for x in bucket.iterdir()) == ["2", "3", "4"]


def test_rows_are_uploaded_before_a_checkpoint_and_rolled_back(bucket, monkeypatch):
    monkeypatch.setattr(staged, "INTERVAL", 1000.0)
    killed = MetricWriter(bucket, resume_step=0)
    killed.write(1, {"loss": 1.0})
    killed.upload()  # before the checkpoint of step 1
    killed.write(2, {"loss": 2.0})
    assert [row["step"] for row in read_rows(bucket / "metrics.jsonl")] == [1]
    with MetricWriter(bucket, resume_step=1) as writer:
        writer.write(2, {"loss": 3.0})
    losses = [row["loss"] for row in read_rows(bucket / "metrics.jsonl")]
    assert losses == [1.0, 3.0]
    assert (bucket / "metrics.csv").read_text() == "step,loss\n1,1.0\n2,3.0\n"


def test_the_thread_uploads_at_intervals(bucket, monkeypatch):
    monkeypatch.setattr(staged, "INTERVAL", 0.05)
    writer = MetricWriter(bucket, resume_step=0)
    writer.write(1, {"loss": 1.0})
    for _ in range(200):
        if read_rows(bucket / "metrics.jsonl"):
            break
        staged.time.sleep(0.05)
    assert read_rows(bucket / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]
    writer.close()


def test_a_folder_is_deleted_with_its_content_and_may_be_missing(bucket):
    for name in ("trial/checkpoints/2/a", "trial/checkpoints/b", "trial/c"):
        (bucket / name).write_text("x")
    for _ in range(2):
        atomic.remove(bucket / "trial" / "checkpoints")
    assert [path.name for path in (bucket / "trial").iterdir()] == ["c"]


def test_a_file_is_replaced_only_if_the_block_succeeds(bucket):
    atomic.write_text(bucket / "x", "old")
    with pytest.raises(ZeroDivisionError), atomic.replace(bucket / "x") as partial:
        partial.write_text(f"new {1 / 0}")
    assert (bucket / "x").read_text() == "old"
    with atomic.replace(bucket / "page") as partial:
        partial.mkdir()
        (partial / "index.html").write_text("<p>")
    assert (bucket / "page" / "index.html").read_text() == "<p>"
