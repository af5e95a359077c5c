"""Checkpoints in the TensorStore formats of earlier versions."""

import json
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from logo_jax.training.checkpoints import manager
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.training.checkpoints.test_manager import (
    assert_same,
    data_files,
    flip_bit,
    make_state,
    restore,
)

FORMATS = {"one file per leaf": False, "packed": True}


def write(folder: Path, step: int, *, use_ocdbt: bool) -> None:
    leaves = {path: np.asarray(x) for path, x in manager._flatten(make_state(step))}
    records = {
        path: {
            "array": f"{leaf.dtype}{list(leaf.shape)}",
            "crc32": zlib.crc32(leaf.tobytes()),
        }
        for path, leaf in leaves.items()
    }
    crc32 = zlib.crc32(json.dumps(records, sort_keys=True).encode())
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(
            use_ocdbt=use_ocdbt, use_compression=use_ocdbt
        ),
        "manifest": ocp.JsonCheckpointHandler(),
    }
    with ocp.CheckpointManager(folder, item_handlers=handlers) as checkpoints:
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(leaves),
            manifest=ocp.args.JsonSave({"leaves": records, "crc32": crc32}),
        )
        checkpoints.save(step, args=items)


@pytest.fixture(scope="session", params=FORMATS)
def valid(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder with the checkpoints 100 and 200."""
    folder = tmp_path_factory.mktemp("old") / "checkpoints"
    for step in (100, 200):
        write(folder, step, use_ocdbt=FORMATS[request.param])
    return folder


@pytest.fixture
def folder(valid: Path, tmp_path: Path) -> Path:
    """Copy of the folder `valid`, which tests may change."""
    return shutil.copytree(valid, tmp_path / "checkpoints")


def test_latest_comes_back_bit_for_bit(folder: Path):
    before = sorted(folder.rglob("*"))
    restored = restore(folder, read_only=True)
    assert (restored.step, restored.lines) == (200, [])
    assert_same(restored.state, make_state(200))
    assert sorted(folder.rglob("*")) == before


def test_a_run_continues_in_the_same_folder_in_the_current_format(folder: Path):
    with CheckpointManager(folder) as checkpoints:
        checkpoints.restore_latest(make_state(0))
        checkpoints.save(300, make_state(300))
        checkpoints.wait()
        assert checkpoints.steps() == [100, 200, 300]
        checkpoints.save(400, make_state(400))
        checkpoints.wait()
        assert checkpoints.steps() == [200, 300, 400]
    assert_same(restore(folder).state, make_state(400))
    shutil.rmtree(folder / "400")
    (folder / "300" / "state" / "arrays.safetensors").unlink()
    restored = restore(folder)
    assert restored.step == 200
    assert_same(restored.state, make_state(200))


def remove_manifest(step: Path):
    shutil.rmtree(step / "manifest")


def truncate_manifest(step: Path):
    path = step / "manifest" / "metadata"
    path.write_bytes(path.read_bytes()[:-20])


def edit_manifest(step: Path):
    path = step / "manifest" / "metadata"
    path.write_text(path.read_text().replace("params/encoder", "params/decoder"))


def truncate_data(step: Path):
    for path in data_files(step / "state"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_data(step: Path):
    shutil.rmtree(step / "state")


@pytest.mark.parametrize(
    "damage",
    [remove_manifest, truncate_manifest, edit_manifest, truncate_data, remove_data],
)
def test_a_damaged_newest_checkpoint_is_reported_and_the_previous_one_restored(
    folder: Path, damage: Any, capfd: pytest.CaptureFixture[str]
):
    damage(folder / "200")
    restored = restore(folder)
    assert restored.step == 100
    assert_same(restored.state, make_state(100))
    (line,) = restored.lines
    assert line.startswith("checkpoint 200 is damaged (")
    assert line.endswith("): taking 100")
    assert "\n" not in line
    assert capfd.readouterr() == ("", "")


def test_no_flipped_bit_ever_reaches_the_state(valid: Path, tmp_path: Path):
    rng = random.Random(0)
    names = [path.relative_to(valid) for path in data_files(valid / "200")]
    largest = max(names, key=lambda name: (valid / name).stat().st_size)
    steps = []
    for trial in range(12):
        copy = shutil.copytree(valid, tmp_path / str(trial))
        name = largest if trial % 2 else names[trial % len(names)]
        flip_bit(copy / name, rng)
        restored = restore(copy)
        assert_same(restored.state, make_state(restored.step))
        assert bool(restored.lines) == (restored.step == 100)
        steps.append(restored.step)
    assert set(steps) == {100, 200}


def test_a_changed_network_is_an_error_and_not_damage(folder: Path):
    other = make_state(0).replace(memory={"queue": jax.numpy.zeros(3)})
    with (
        CheckpointManager(folder) as checkpoints,
        pytest.raises(ValueError, match=r"200 in .*memory/queue is uint32"),
    ):
        checkpoints.restore_latest(other)
    assert (folder / "200").exists()
