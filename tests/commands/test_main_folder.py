"""Training on a folder of images: streaming, resuming, and damaged files."""

import jax
import numpy as np
import pytest
from PIL import Image

from logo_jax.data.loader import OnDeviceLoader, StreamingLoader
from logo_jax.experiment import data, make_experiment
from logo_jax.parallel.mesh import make_mesh
from logo_jax.runs.training import InputError, open_run
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.loop import DataError
from logo_jax.training.workdir import claim_workdir, record_data
from tests.commands.test_main import SPEED, records, refused, run, tiny_config
from tests.data.pictures import encoded, smooth, write_folder
from tests.run_commands import evaluated

SHAPES = ((24, 40), (40, 9), (12, 12), (1, 30))


@pytest.fixture(name="images")
def fixture_images(tmp_path):
    """A folder with two classes of images of several shapes, for training and test."""
    root = tmp_path / "images"
    for split, counts in (("train", {"a": 12, "b": 9}), ("val", {"a": 4, "b": 4})):
        write_folder(root / split, counts)
    for i, shape in enumerate(SHAPES):
        file = root / "train" / "a" / f"{i}.png"
        file.write_bytes(encoded(smooth(*shape, seed=i)))
    return root


def folder_config(images, loader="streaming", **changes):
    changes = {
        "data.source": "folder",
        "data.canvas": 16,
        "data.loader": loader,
        "monitor.resize": 10,
        "monitor.crop": 8,
    } | changes
    return tiny_config("cifar10_simsiam", "baseline", images, **changes)


def experiment(config):
    return make_experiment(config, make_mesh(jax.devices()[:1]))


def damage(file):
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.slow
def test_streamed_and_on_device_runs_are_bit_equal_even_if_resumed(images, tmp_path):
    resident = run(folder_config(images, "on_device"), tmp_path / "resident")
    config = folder_config(images, **{"data.threads": 3})
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "streamed", until=3)
    streamed = run(config, tmp_path / "streamed")
    for a, b in zip(*map(jax.tree.leaves, (resident, streamed)), strict=True):
        np.testing.assert_array_equal(a, b)
    keep = [
        [{k: v for k, v in row.items() if k not in SPEED} for row in records(f)]
        for f in (tmp_path / "resident", tmp_path / "streamed")
    ]
    assert keep[0] == keep[1]
    assert "knn/k3_t0.1/top1" in keep[0][2]


def test_the_loader_is_chosen_by_the_size_of_the_images(images, monkeypatch):
    small = experiment(folder_config(images, "auto"))
    assert isinstance(small.loader, OnDeviceLoader)
    assert "21 images of" in small.loading
    assert "held in device memory at 16x16 px" in small.loading
    monkeypatch.setattr(data, "SHARE", 21 * 16 * 16 * 3 / 2**50)
    large = experiment(folder_config(images, "auto"))
    assert isinstance(large.loader, StreamingLoader)
    assert "decoded while training at 16x16 px" in large.loading


def test_the_share_of_time_spent_waiting_for_data_is_recorded(images, tmp_path):
    run(folder_config(images), tmp_path / "run")
    (first, *_) = records(tmp_path / "run")
    assert 0 <= first["data_wait_percent"] <= 100


def test_evaluate_gives_the_knn_of_the_training_run(images, tmp_path):
    config = folder_config(images)
    claim_workdir(tmp_path / "run", config.to_dict())
    run(config, tmp_path / "run")
    record_data(tmp_path / "run", {})  # other data than those of the evaluation
    report = evaluated(tmp_path / "run")
    values = report["values"]
    changes = "queries: none before; train: none before"
    note = f"the data have changed since the start of the run ({changes})"
    assert report["note"] == note
    wanted = {k: v for k, v in records(tmp_path / "run")[-1].items() if k != "step"}
    assert values == wanted


@pytest.mark.slow
def test_a_run_is_evaluated_on_other_data_sets_too(images, tmp_path):
    config = folder_config(images, **{"monitor.knn": ((1, 0.1),)})
    folder, arrays = tmp_path / "run", tmp_path / "arrays"
    claim_workdir(folder, config.to_dict())
    run(config, folder)
    arrays.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    labels = np.array([[1, -1], [1, 1], [-1, 1]] * 2)
    for split in ("train", "test"):  # each image's nearest neighbor is itself
        np.savez(arrays / f"{split}.npz", images=pixels, labels=labels)
    report = evaluated(folder, f"--dataset={arrays}", "--resize=0", "--crop=0")
    assert report["values"] == {"knn/k1_t0.1/map": 100.0}
    (images / "val").rename(tmp_path / "moved")
    for split in ("train", "val"):
        write_folder(tmp_path / "other" / split, {"x": 2, "y": 2, "z": 2})
    report = evaluated(folder, f"--dataset={tmp_path / 'other'}")
    assert report["values"] == {"knn/k1_t0.1/top1": 100.0, "knn/k1_t0.1/top5": 100.0}


def test_the_first_lines_state_the_splits_and_what_was_passed_over(images):
    write_folder(images, {"test/a": 1})
    (images / "train" / "a" / "x.heic").touch()
    first, second = experiment(folder_config(images)).loading.splitlines()
    assert first.startswith(f"data: 21 images of {images}/train in 2 classes, decoded")
    knn = f"kNN: bank of 21, queries 8 of {images}/val ({images}/test is not used)"
    assert first.endswith(f"; {knn}")
    assert second.startswith(f"data: in {images}/train, passed over files: 1 .heic (in")


def test_without_a_test_split_there_is_no_knn_and_a_line_reports_it(images):
    found = experiment(folder_config(images / "val", **{"data.batch_size": 4}))
    assert found.monitor is None
    reason = f"{images}/val has no folders train and val; config.data.val_size=N holds"
    assert f"; no kNN: {reason}" in found.loading


def test_a_run_resumes_only_on_the_images_that_it_began_with(images, tmp_path, capsys):
    config, folder = folder_config(images).to_dict(), tmp_path / "run"
    with open_run(config, folder, quiet=False):
        assert (folder / "data.json").is_file()
    write_folder(images / "train", {"aa": 4})
    with (
        pytest.raises(InputError, match=r"21 in 2 classes before, 25 in 3 .*now: \+4"),
        open_run(config, folder, quiet=False),
    ):
        pass
    (folder / "data.json").unlink()  # as in the folder of an older run
    (images / "train" / "aa").rename(images / "train" / "c")
    with open_run(config, folder, quiet=False):
        pass
    assert capsys.readouterr().err == ""
    (images / "val" / "a" / "0.png").unlink()
    with open_run(config, folder, quiet=False):
        pass
    assert "8 in 3 classes before, 7 in 3 classes now: -1" in capsys.readouterr().err


def test_images_of_16_bits_are_reported_and_scaled_by_the_bits_they_use(tmp_path):
    deep = np.full((12, 12), 4095, np.uint16)
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(encoded(Image.fromarray(deep - 9 * i)))
    for bits, white in ((16, 15), (12, 255)):
        found = experiment(folder_config(tmp_path, **{"data.bit_depth": bits}))
        line = found.loading.splitlines()[-1]
        assert "9 of 9 images that were looked at have more than 8 bits" in line
        assert f"{2**bits - 1} becomes 255, and their largest value, 4095, beco" in line
        assert f"becomes {white}" in line
        assert ("set config.data.bit_depth=12" in line) == (bits == 16)
        assert found.shown.images[0].max() == white


def test_images_of_several_sizes_need_a_size_for_evaluation(images):
    config = folder_config(images, **{"monitor.resize": 0, "monitor.crop": 0})
    with pytest.raises(ValueError, match=r"differ in size, .*monitor\.resize=0"):
        experiment(config)


@pytest.mark.slow
def test_too_many_damaged_files_stop_the_run_after_a_checkpoint(images, tmp_path):
    config = folder_config(images, **{"data.max_corrupt": 0.06, "train.num_steps": 40})
    folder = tmp_path / "run"
    damage(images / "train" / "a" / "5.png")  # one of 21 images may be damaged
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, until=3)
    damage(images / "train" / "b" / "2.png")
    with pytest.raises(DataError, match=r"after step \d+: 2 images cannot be decoded"):
        run(config, folder)
    steps = [row["step"] for row in records(folder)]
    found = experiment(config)
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        step, _ = checkpoints.restore_latest(found.init())
    assert step == steps[-1] >= 2


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: root.mkdir(), "contains no images"),
        (lambda root: root.write_text("a file"), "is not a folder"),
        (lambda root: write_folder(root, {".": 1}), "has 1 image, but a training"),
        (lambda root: None, "is not a folder"),
        (lambda root: damaged_folder(root), "cannot be decoded"),
    ],
)
def test_an_unusable_folder_is_reported_in_one_line(prepare, message, tmp_path, capfd):
    prepare(tmp_path / "my images ü")
    line = refused(
        capfd,
        "--config=configs/folder.py",
        f"--config.data.path={tmp_path / 'my images ü'}",
        "--config.data.batch_size=8",
        f"--workdir={tmp_path / 'run'}",
    )
    assert message in line
    assert not (tmp_path / "run").exists()


def damaged_folder(root):
    write_folder(root, {"a": 9})
    damage(root / "a" / "3.png")
