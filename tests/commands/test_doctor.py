"""`logo_jax.doctor` checks a training run, reports what it needs and writes nothing.

Only the test of a healthy run compiles a training step, that of a small MoCo.
"""

import itertools
import shutil
import types
from collections import namedtuple

import jax
import numpy as np
import pytest

from logo_jax import configs, doctor
from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.load import load_images
from logo_jax.experiment import parse
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from tests.commands.test_main import TINY, tiny_config
from tests.data.pictures import write_folder

CONFIG = "configs/cifar10_moco.py:baseline"
TINY_MOCO = TINY | {"method.queue_size": 64, "batch_norm": "per_device"}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(name="arrays")
def fixture_arrays(tmp_path):
    """Arrays in a folder whose name has a space and a non-ASCII letter."""
    folder = tmp_path / "my arrays ü"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 10)):
        images = rng.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
        np.savez(folder / split, images=images, labels=np.arange(count) % 3)
    return folder


@pytest.fixture(name="run")
def fixture_run(arrays, tmp_path, capsys):
    """A function that runs the command; returns exit code, findings and lines."""

    def run(*changes):
        fields = TINY_MOCO | {"data.path": arrays}
        argv = [f"--config={CONFIG}", f"--workdir={tmp_path / 'the run'}"]
        argv += [f"--config.{name}={value}" for name, value in fields.items()]
        code = doctor.main([*argv, *changes])
        lines = capsys.readouterr().out.splitlines()
        assert not (tmp_path / "the run").exists()
        findings = {line[5:14].strip(): line for line in lines if line[0] != " "}
        return code, findings, lines

    return run


def examine(config, published=None, folder=None, num_timed=0):
    """Returns the findings by subject, up to "disk": later ones need to compile."""
    config = config.to_dict()
    findings = doctor.examine(
        config,
        published=config if published is None else published,
        folder=folder,
        mesh=make_mesh(jax.devices()[:2]),
        num_timed=num_timed,
        clock=itertools.count().__next__,
    )
    found = {}
    for finding in findings:
        found[finding.subject] = finding
        if finding.subject == "disk":
            break
    return found


@pytest.mark.slow
def test_a_healthy_run_is_reported_with_all_it_needs(run):
    code, findings, lines = run("--steps=2")
    assert code == 0
    assert lines[-1] == "it will run"
    texts = {
        subject: line[14:] for subject, line in findings.items() if line in lines[:-1]
    }
    assert {line[:5].strip() for line in lines[:-1] if line[0] != " "} == {"ok", "warn"}
    assert texts["devices"] == "4 x cpu"
    assert texts["batch"] == "8 = 4 devices x 2"
    assert texts["queue"].startswith(
        "64 = 8 batches, in which each image is 2.67 times"
    )
    assert texts["queue"].endswith("use config.method.queue_size=24 or less")
    assert texts["workdir"] == "the run is new"
    assert "24 images of" in texts["data"]
    assert "GiB per device, of its share of the host's" in texts["memory"]
    assert "for 4 steps of" in texts["time"]
    assert texts["recipe"] == "20 fields differ from the config file:"
    assert "              data.batch_size: 512 -> 8" in lines
    assert "              train.num_steps: 0 -> 4" in lines


@pytest.mark.parametrize(
    ("change", "subject", "fragment"),
    [
        ("data.path=/nowhere", "data", "/nowhere is not a folder; give the folder"),
        ("data.batch_size=6", "config", "batch_size=6 must be a multiple of 4"),
        ("augment.extra=math:sin", "config", "augment.extra='math:sin' raises TypeErr"),
        ("method.queue_size=60", "config", "queue_size=60 must be a multiple of the 8"),
        ("encoder.weights=nowhere", "weights", "'nowhere' does not exist; give the"),
        ("data.batch_size=32", "data", "batch_size=32 exceeds the 24 training images"),
    ],
)
def test_a_run_that_will_not_work_fails_with_the_remedy(change, subject, fragment, run):
    code, findings, lines = run(f"--config.{change}")
    assert code == 2
    assert lines[-1] == "it will not run: fix each FAIL"
    assert findings[subject].startswith(f"FAIL {subject}")
    assert fragment in findings[subject]
    assert "memory" not in findings


def test_all_damaged_images_are_listed_in_a_file(run, tmp_path):
    write_folder(tmp_path / "images", {"a": 6, "b": 6})
    files = sorted((tmp_path / "images").rglob("*.*"))
    spoiled = [files[1], files[-1]]
    for file in spoiled:
        file.write_bytes(file.read_bytes()[:60])
    given = {"data.source": "folder", "data.path": tmp_path / "images"}
    fields = [f"--config.{name}={value}" for name, value in given.items()]
    code, findings, _ = run(*fields, f"--damaged={tmp_path / 'list.txt'}")
    assert code == 2
    text = f"2 of 12 cannot be decoded; {tmp_path / 'list.txt'} lists them"
    assert findings["images"] == f"warn images   {text}"
    assert findings["data"].startswith("FAIL data")
    assert (
        "run logo_jax.doctor with these fields and --damaged=FILE" in findings["data"]
    )
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in lines] == list(map(str, spoiled))


def test_the_disk_must_hold_one_checkpoint_more_than_are_kept(
    arrays, tmp_path, monkeypatch
):
    config = tiny_config("cifar10_moco", "baseline", arrays)
    _, state = doctor._described(config.to_dict(), make_mesh(jax.devices()[:2]))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    for free, verdict in ((4 * size - 1, "FAIL"), (4 * size, "warn"), (5 * size, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, n=free: Usage(n, 0, n))
        found = examine(config, folder=tmp_path / "run")
        assert found["disk"].verdict == verdict
    assert str(tmp_path) in found["disk"].text


def test_a_run_in_the_workdir_resumes_unless_its_config_differs(arrays, tmp_path):
    config = tiny_config("cifar10_moco", "baseline", arrays)
    folder = tmp_path / "run"
    workdir.claim_workdir(folder, config.to_dict())
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, {"x": np.zeros(3)})
    before = sorted(folder.rglob("*"))
    found = examine(config, folder=folder)
    assert found["workdir"].text == "the run resumes after step 3"
    assert found["recipe"].verdict == "ok"
    config.data.threads = 3
    found = examine(config, folder=folder)
    assert found["workdir"].verdict == "ok"
    assert found["workdir"].text.endswith("learns: data.threads: 0 -> 3")
    config.seed = 7
    found = examine(config, folder=folder)
    assert found["workdir"].verdict == "FAIL"
    assert "seed: 0 -> 7" in found["workdir"].text
    assert sorted(folder.rglob("*")) == before


def test_other_images_than_those_of_the_run_in_the_workdir_fail(arrays, tmp_path):
    config = tiny_config("cifar10_moco", "baseline", arrays)
    folder = tmp_path / "run"
    workdir.claim_workdir(folder, config.to_dict())
    data = fingerprint(load_images(parse(config).data.location))
    queries = data["queries"] | {"images": 11}
    train = data["train"] | {"images": 25}
    for changed, verdict, text in (
        ({}, "ok", "kNN: bank of 24, queries 10 of"),
        ({"queries": queries}, "ok", "have changed since the start of the run"),
        ({"train": train}, "FAIL", "holds a run on other training images"),
    ):
        (folder / workdir.DATA_FILE).unlink(missing_ok=True)
        workdir.record_data(folder, data | changed)
        found = examine(config, folder=folder)["data"]
        assert found.verdict == verdict
        assert text in found.text


def test_the_chosen_values_are_stated_and_checked(arrays):
    open_fields = {"data.batch_size": -1, "train.num_epochs": -1, "monitor.knn": ()}
    open_fields["auto"] = True
    config = tiny_config("cifar10_simsiam", "baseline", arrays, **open_fields)
    found = examine(config)
    assert found["chosen"].verdict == "ok"
    assert "chosen for 24 images of about 8x8 px" in found["chosen"].text
    assert (
        "data.batch_size=16\n              monitor.knn=((4, 0.07),)"
        in found["chosen"].text
    )
    assert "num_epochs" not in found["chosen"].text  # num_steps is given
    assert found["batch"].text.startswith("16 = 2 devices x 8")
    config.data.path = "/nowhere"
    found = examine(config)
    assert found["chosen"].verdict == "FAIL"
    assert "config" not in found


@pytest.mark.parametrize(
    ("size", "verdict", "text"),
    [
        (0, "ok", "none"),
        (24, "ok", "24 = 3 batches"),
        (32, "warn", "32 = 4 batches, in"),
    ],
)
def test_a_queue_of_more_images_than_there_are_is_a_warning(size, verdict, text):
    method = types.SimpleNamespace(queue_size=size)
    data = types.SimpleNamespace(batch_size=8)
    spec = types.SimpleNamespace(
        method=method,
        config=types.SimpleNamespace(data=data),
        schedule=types.SimpleNamespace(steps_per_epoch=3),
    )
    found = doctor._queue(spec)
    assert found.verdict == verdict
    assert found.text.startswith(text)


@pytest.mark.parametrize(
    ("needed", "verdict"), [(2**30, "ok"), (1.9 * 2**30, "warn"), (2**31 + 1, "FAIL")]
)
def test_more_memory_than_a_device_has_fails(needed, verdict):
    finding = doctor._memory(needed, 2**31, "the device's", lambda: "batch 4")
    assert finding.verdict == verdict
    assert ("use batch 4, or more devices" in finding.text) == (verdict == "FAIL")


def test_the_config_is_printed_in_the_form_of_a_config_file(capsys):
    changes = {"crops.global_crops": "(2, 16, (0.4, 1))", "train.num_epochs": "7"}
    fields = [f"--config.{name}={value}" for name, value in changes.items()]
    assert doctor.main([f"--config={CONFIG}", *fields, "--print"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "config.train.num_epochs = 7" in lines
    assert "config.data.source = 'tfds'" in lines
    config = configs.load("cifar10_moco:logo")
    exec("\n".join(lines), {"config": config})
    assert config == configs.load(CONFIG, changes)


def test_the_time_is_the_remaining_steps_times_the_median_step():
    assert doctor._time(0.5, 14_400) == (
        "2:00:00 for 14400 steps of 0.5 s, without kNN"
    )
