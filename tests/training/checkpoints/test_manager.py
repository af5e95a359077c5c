import errno
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from logo_jax.training.checkpoints import orbax_handler
from logo_jax.training.checkpoints.keep import Keep
from logo_jax.training.checkpoints.manager import CheckpointManager, SaveError


class State(struct.PyTreeNode):
    step: Any
    params: dict[str, Any]
    opt_states: dict[str, Any]
    memory: dict[str, Any]


class Restored(NamedTuple):
    step: int
    state: State
    lines: list[str]


def make_state(step: int) -> State:
    """State with many types of leaves, different at each step, mostly a large queue.

    The queue consists of random bits, which cannot be compressed. Therefore a flipped
    bit can be detected only by our checksum, not by a decompression error.
    """
    key = jax.random.key(step)
    kernel = jax.random.normal(key, (4, 3))
    params = {"encoder": {"kernel": kernel, "bias": jnp.full(3, step, jnp.bfloat16)}}
    tx = optax.chain(optax.identity(), optax.trace(0.9))
    return State(
        step=jnp.int32(step),
        params=params,
        opt_states={"base": tx.init(params)},
        memory={"queue": jax.random.bits(key, (64, 64)), "seen": jnp.array([True])},
    )


def assert_same(actual: State, expected: State):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def restore(folder: Path, **kwargs: Any) -> Restored:
    lines: list[str] = []
    with CheckpointManager(folder, report=lines.append, **kwargs) as checkpoints:
        found = checkpoints.restore_latest(jax.eval_shape(lambda: make_state(0)))
    assert found is not None
    return Restored(*found, lines)


def data_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.stat().st_size]


def flip_bit(path: Path, rng: random.Random):
    content = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.fixture(scope="session")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the checkpoints 100, 200 and 300."""
    folder = tmp_path_factory.mktemp("valid") / "checkpoints"
    with CheckpointManager(folder) as checkpoints:
        for step in (100, 200, 300):
            checkpoints.save(step, make_state(step))
    return folder


@pytest.fixture
def folder(valid: Path, tmp_path: Path) -> Path:
    """Copy of the folder `valid`, which tests may damage."""
    return shutil.copytree(valid, tmp_path / "checkpoints")


def test_a_folder_without_checkpoints_restores_none(tmp_path: Path):
    with CheckpointManager(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(make_state(0)) is None


def test_latest_state_comes_back_bit_for_bit_with_its_structure(folder: Path):
    restored = restore(folder)
    assert (restored.step, restored.lines) == (300, [])
    assert_same(restored.state, make_state(300))


def test_restored_state_has_the_shardings_asked_for(folder: Path):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())
    like = jax.device_put(make_state(0), replicated)
    with CheckpointManager(folder) as checkpoints:
        found = checkpoints.restore_latest(like)
    assert found is not None
    assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(found[1]))


def test_state_donated_right_after_save_is_saved_as_it_was(tmp_path: Path):
    advance = jax.jit(
        lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0
    )
    state = {"queue": jax.random.normal(jax.random.key(0), (512, 512))}
    expected = np.array(state["queue"])
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        # jax 0.10 overwrites donated arrays; 0.11 does not if NumPy has a view of them
        later = jax.block_until_ready(advance(state))
        found = checkpoints.restore_latest(later)
    assert found is not None
    np.testing.assert_array_equal(found[1]["queue"], expected)


def test_only_the_newest_checkpoints_are_kept_and_the_trash_is_empty(tmp_path: Path):
    with CheckpointManager(tmp_path, keep=Keep(newest=2)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step))
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_trash_and_half_written_steps_of_a_killed_run_are_removed(folder: Path):
    (folder / "trash" / "50").mkdir(parents=True)
    (folder / "400.orbax-checkpoint-tmp").mkdir()
    assert restore(folder).step == 300
    # Orbax removes half-written steps in a thread, which only `save` waits for.
    for _ in range(600):
        left = sorted(path.name for path in folder.iterdir())
        if left == ["100", "200", "300"]:
            break
        time.sleep(0.1)
    assert left == ["100", "200", "300"]


@pytest.mark.parametrize("step", [300, 250])
def test_saving_a_step_that_is_not_newer_is_an_error(folder: Path, step: int):
    with (
        CheckpointManager(folder) as checkpoints,
        pytest.raises(ValueError, match=rf"step {step} must be newer .*300\]"),
    ):
        checkpoints.save(step, make_state(step))


def remove_everything(step: Path):
    shutil.rmtree(step)
    step.mkdir()


def remove_manifest(step: Path):
    (step / "state" / "manifest.json").unlink()


def truncate_manifest(step: Path):
    path = step / "state" / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])


def edit_manifest(step: Path):
    path = step / "state" / "manifest.json"
    path.write_text(path.read_text().replace("params/encoder", "params/decoder"))


def truncate_data(step: Path):
    path = step / "state" / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncate_last_byte(step: Path):
    path = step / "state" / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def remove_data(step: Path):
    (step / "state" / "arrays.safetensors").unlink()


def empty_data(step: Path):
    (step / "state" / "arrays.safetensors").write_bytes(b"")


def take_data_of_another_step(step: Path):
    name = "state/arrays.safetensors"
    shutil.copyfile(step.parent / "100" / name, step / name)


def rename_leaf(step: Path):
    path = step / "state" / "arrays.safetensors"
    path.write_bytes(path.read_bytes().replace(b"memory/queue", b"memory/quite", 1))


DAMAGES = [
    remove_everything,
    remove_manifest,
    truncate_manifest,
    edit_manifest,
    truncate_data,
    truncate_last_byte,
    remove_data,
    empty_data,
    take_data_of_another_step,
    rename_leaf,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_reported_and_the_previous_one_restored(
    folder: Path, damage: Any, capfd: pytest.CaptureFixture[str]
):
    damage(folder / "300")
    restored = restore(folder)
    assert restored.step == 200
    assert_same(restored.state, make_state(200))
    (line,) = restored.lines
    assert line.startswith("checkpoint 300 is damaged (")
    assert line.endswith("): taking 200")
    assert "\n" not in line
    assert capfd.readouterr() == ("", "")


def test_a_disk_that_fails_for_a_while_deletes_no_checkpoint(folder, monkeypatch):
    """A missing or changed file is damage; a file that cannot be read may be valid."""

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(orbax_handler, "read_leaves", fails)
        with pytest.raises(OSError, match=r"300/state cannot be read .*Input/output"):
            restore(folder)
    assert restore(folder).step == 300


def test_report_goes_to_stderr_by_default(
    folder: Path, capfd: pytest.CaptureFixture[str]
):
    remove_everything(folder / "300")
    with CheckpointManager(folder) as checkpoints:
        checkpoints.restore_latest(make_state(0))
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("checkpoint 300 is damaged")
    assert err.count("\n") == 1


def test_no_flipped_bit_ever_reaches_the_state(valid: Path, tmp_path: Path):
    rng = random.Random(0)
    names = [path.relative_to(valid) for path in data_files(valid / "300")]
    steps = []
    for trial in range(30):
        copy = shutil.copytree(valid, tmp_path / str(trial))
        flip_bit(copy / names[trial % len(names)], rng)
        restored = restore(copy)
        assert_same(restored.state, make_state(restored.step))
        assert bool(restored.lines) == (restored.step == 200)
        steps.append(restored.step)
    assert set(steps) == {200, 300}


def test_flipped_bit_of_a_leaf_is_named_by_its_path(folder: Path):
    path = max(data_files(folder / "300"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (line,) = restore(folder).lines
    assert line == (
        "checkpoint 300 is damaged (memory/queue: checksum differs): taking 200"
    )


def test_every_skipped_damaged_checkpoint_is_reported(folder: Path):
    remove_data(folder / "300")
    remove_manifest(folder / "200")
    restored = restore(folder)
    assert restored.step == 100
    assert [line.split(" (")[0] for line in restored.lines] == [
        "checkpoint 300 is damaged",
        "checkpoint 200 is damaged",
    ]


@pytest.mark.parametrize("damage", [remove_everything, truncate_data])
def test_damaged_step_can_be_saved_again(folder: Path, damage: Any):
    damage(folder / "300")
    with CheckpointManager(folder, report=lambda _: None) as checkpoints:
        checkpoints.restore_latest(make_state(0))
        checkpoints.save(300, make_state(7))
    restored = restore(folder)
    assert (restored.step, restored.lines) == (300, [])
    assert_same(restored.state, make_state(7))


def test_a_run_without_valid_checkpoints_does_not_start_from_scratch(folder: Path):
    for step in (100, 200, 300):
        truncate_manifest(folder / str(step))
    with pytest.raises(
        ValueError, match="are damaged .*move that folder away"
    ) as error:
        restore(folder)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["100", "200", "300"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"kernel": jnp.zeros((4, 5))},
            r"kernel is float32\[4, 3\] in the checkpoint and float",
        ),
        (
            {"bias": jnp.zeros(3)},
            r"bias is bfloat16\[3\] in the checkpoint and float32\[3\] in the run",
        ),
        (
            {"scale": jnp.zeros(3)},
            r"scale is absent in the checkpoint and float32\[3\] in the run",
        ),
        (
            {"bias": None},
            r"bias is bfloat16\[3\] in the checkpoint and absent in the run",
        ),
    ],
)
def test_a_changed_network_is_an_error_and_not_damage(
    folder: Path, changed: dict[str, Any], message: str
):
    state = make_state(0)
    encoder = state.params["encoder"] | changed
    with (
        CheckpointManager(folder) as checkpoints,
        pytest.raises(ValueError, match=f"300 in .*params/encoder/{message}") as error,
    ):
        checkpoints.restore_latest(state.replace(params={"encoder": encoder}))
    assert "\n" not in str(error.value)
    assert (folder / "300").exists()


def test_leaves_that_would_share_a_path_are_refused(tmp_path: Path):
    with (
        CheckpointManager(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="same slash-joined path"),
    ):
        checkpoints.save(1, {"a": {"b": jnp.zeros(1)}, "a/b": jnp.ones(1)})


def test_folder_under_a_file_is_refused_when_opened(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file/checkpoints must be writable") as error:
        CheckpointManager(tmp_path / "file" / "checkpoints")
    assert "\n" not in str(error.value)


def test_keeping_no_checkpoint_is_refused():
    with pytest.raises(ValueError, match="newest=0 must be at least 1"):
        Keep(newest=0)


def test_read_only_leaves_a_running_training_run_alone(folder: Path):
    remove_data(folder / "300")
    (folder / "trash").mkdir()
    (folder / "400.orbax-checkpoint-tmp").mkdir()
    before = sorted(folder.rglob("*"))
    assert restore(folder, read_only=True).step == 200
    assert sorted(folder.rglob("*")) == before


def test_read_only_does_not_make_the_folder_or_save_into_it(tmp_path: Path):
    with CheckpointManager(tmp_path / "none", read_only=True) as checkpoints:
        assert checkpoints.restore_latest(make_state(0)) is None
        with pytest.raises(ValueError, match="read-only"):
            checkpoints.save(1, make_state(1))
    assert not (tmp_path / "none").exists()


def test_after_a_failed_save_nothing_is_written_and_the_step_can_be_saved_again(
    tmp_path,
):
    """Half of the leaves fit within the file size limit."""
    state = {str(i): np.arange(200, dtype=np.int32) + i for i in range(400)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with CheckpointManager(tmp_path) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            checkpoints.save(1, state)
            with pytest.raises(SaveError, match="File too large"):
                checkpoints.wait()
            assert not list(
                tmp_path.rglob("arrays.safetensors")
            )  # the disk space is free again
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        checkpoints.save(1, state)
        checkpoints.wait()
        found = checkpoints.restore_latest(jax.eval_shape(lambda: state))
    assert found is not None
    np.testing.assert_array_equal(found[1]["399"], state["399"])


def test_a_failure_after_the_arrays_is_raised_once_and_leaves_earlier_steps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    with CheckpointManager(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(orbax_handler, "make_manifest", lambda *_: 1 / 0)
            checkpoints.save(400, make_state(400))
            with pytest.raises(SaveError, match="earlier ones are valid") as error:
                checkpoints.save(500, make_state(500))
        assert "\n" not in str(error.value)
        checkpoints.wait()
    assert {"100", "200", "300"} <= {path.name for path in folder.iterdir()}
    assert restore(folder).step == 300


KILLED_WHILE_SAVING = """
import os, signal, sys
import numpy as np
from logo_jax.training.checkpoints import manager, orbax_handler

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write_half(file, leaves):
    file.write(bytes(leaves["x"][:500]))
    file.flush()
    kill()

checkpoints = manager.CheckpointManager(sys.argv[1])
checkpoints.save(1, {"x": np.arange(1000)})
checkpoints.wait()
if sys.argv[2] == "arrays":
    orbax_handler.array_file.write_arrays = write_half
else:
    orbax_handler.make_manifest = kill
checkpoints.save(2, {"x": np.arange(1000)})
checkpoints.wait()
"""


@pytest.mark.parametrize("moment", ["arrays", "manifest"])
def test_a_kill_in_a_save_leaves_the_earlier_checkpoint_and_no_half_one(
    tmp_path: Path, moment: str
):
    line = [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), moment]
    killed = subprocess.run(line, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (half,) = (path for path in tmp_path.iterdir() if path.name != "1")
    assert list(half.rglob("arrays.safetensors"))
    lines: list[str] = []
    like = {"x": np.zeros(1000, int)}
    with CheckpointManager(tmp_path, report=lines.append) as checkpoints:
        assert checkpoints.steps() == [1]
        found = checkpoints.restore_latest(like)
        checkpoints.save(2, like)
    assert found is not None
    np.testing.assert_array_equal(found[1]["x"], np.arange(1000))
    assert (found[0], lines) == (1, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_checkpoint_of_many_leaves_is_a_few_files(tmp_path: Path):
    state = {f"layer{i}": {"kernel": np.full(3, i)} for i in range(2000)}
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    files = [path for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert len(files) <= 5
    names = {path.name for path in files}
    assert {"arrays.safetensors", "manifest.json"} <= names


def test_the_copy_of_the_state_is_freed_after_it_is_written(tmp_path: Path):
    state = {f"w{i}": np.ones(2**18, np.float32) for i in range(8)}
    with CheckpointManager(tmp_path) as checkpoints:
        tracemalloc.start()  # traces NumPy arrays, too
        checkpoints.save(1, state)
        checkpoints.wait()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert held < 0.2 * sum(x.nbytes for x in state.values())


def test_a_dtype_that_cannot_be_stored_is_refused_before_anything_is_written(
    tmp_path: Path,
):
    with (
        CheckpointManager(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="a/x is complex128, which safetensors cannot"),
    ):
        checkpoints.save(1, {"a": {"x": np.zeros(2, complex)}})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_a_newer_format_is_neither_read_nor_deleted(folder: Path):
    path = folder / "300" / "state" / "manifest.json"
    body = json.loads(path.read_text()) | {"version": 2}
    del body["crc32"]
    crc32 = zlib.crc32(json.dumps(body, sort_keys=True).encode())
    path.write_text(json.dumps(body | {"crc32": crc32}))
    with pytest.raises(ValueError, match="format must be at most 1, got 2; update"):
        restore(folder)
    assert (folder / "300").exists()


def test_an_online_classifier_in_the_checkpoint_is_ignored(
    tmp_path: Path,
):
    network = {"params": {"encoder": np.arange(3.0)}, "step": np.int32(1)}
    params = network["params"] | {"linear": {"bias": np.ones(2)}}
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(1, network | {"params": params})
        found = checkpoints.restore_latest(network)
        assert found is not None
        assert found[1].keys() == network.keys()
        assert found[1]["params"].keys() == {"encoder"}
        with pytest.raises(ValueError, match="params/encoder is float64"):
            checkpoints.restore_latest({"params": {}, "step": np.int32(1)})
