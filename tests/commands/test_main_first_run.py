"""The command with nothing but a config: its folder, its data set, its words."""

import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from tensorflow_datasets.core.download.checksums import compute_url_info

from logo_jax import main
from logo_jax.data import datasets
from logo_jax.data.builders import cifar10
from logo_jax.data.builders.prepare import prepare
from tests.backbones import BACKBONE
from tests.data.builders.test_cifar10 import archive_contents, write_archive
from tests.data.conftest import (
    fixture_arrays,  # noqa: F401
    fixture_arrays_dir,  # noqa: F401
    fixture_data_dir,  # noqa: F401
)

COMMAND = ["--config=configs/cifar10_simsiam.py"]
TINY = {
    "data.batch_size": 8,
    "crops.global_crops": "(2, 8, (0.4, 1.0))",
    "crops.local_crops": "(2, 8, (0.1, 0.6))",
    "augment.jitter_prob": 0.0,
    "augment.grayscale_prob": 0.0,
    "encoder.backbone": BACKBONE,
    "encoder.width": 4,
    "encoder.head_hidden": 8,
    "encoder.embedding_dim": 8,
    "logo.regressor_width": 8,
    "train.num_steps": 2,
    "monitor.knn": "((20, 0.07),)",
}
ROOT = pathlib.Path(__file__).parents[2]
FIELDS = [f"--config.{name}={value}" for name, value in TINY.items()]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # noqa: A002
        del format, args


@pytest.fixture(name="archive")
def fixture_archive(arrays, tmp_path, monkeypatch):
    """CIFAR-10's archive, of a few images, behind the URL that `prepare` reads."""
    file = write_archive(tmp_path / "host", archive_contents(arrays))
    handler = functools.partial(QuietHandler, directory=file.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        monkeypatch.setattr(cifar10.Cifar10, "url_infos", {url: compute_url_info(file)})
        monkeypatch.setitem(datasets.DATASETS["cifar10"].examples, "train", 23)
        monkeypatch.setitem(datasets.DATASETS["cifar10"].examples, "test", 11)
        yield file
        server.shutdown()
        thread.join()


@pytest.fixture(name="place")
def fixture_place(tmp_path, monkeypatch):
    """An empty current folder and an empty folder of prepared data sets."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return place


def rows(folder):
    return list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))


@pytest.mark.slow
def test_the_command_as_typed_trains_on_a_prepared_data_set(data_dir, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "logo_jax.main", *COMMAND, *FIELDS],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(data_dir)},
    )
    assert done.returncode == 0, done.stderr
    first, second, third, *_ = done.stderr.splitlines()
    assert first == (
        "training on cifar10 for 2 steps of 8 images (epochs: 1), on 4 x cpu, in "
        "runs/cifar10_simsiam"
    )
    assert second.startswith("data: 23 images of cifar10 train in 10 classes, held in ")
    assert second.endswith("; kNN: bank of 23, queries 11 of cifar10 test")
    assert third == "compiling the training step"
    assert re.search(
        r"\nstep 2: kNN \d+\.\d\d %, the top-1 accuracy of the 20 nearest neighbors\n",
        done.stderr,
    )
    *_, wrote, evaluate, report = done.stderr.splitlines()
    assert wrote.endswith("metrics.jsonl, tensorboard/ to runs/cifar10_simsiam")
    assert evaluate.endswith("--workdir=runs/cifar10_simsiam --protocol=knn")
    assert report.endswith(" -m logo_jax.report runs/cifar10_simsiam")
    word = report.split(": ")[1].split()[0]  # this Python, whatever PATH has
    found = shutil.which(word, path=os.environ["PATH"]) or tmp_path / word
    assert pathlib.Path(found).parent == pathlib.Path(sys.executable).parent
    assert rows(tmp_path / "runs" / "cifar10_simsiam")[-1]["step"] == 2


@pytest.mark.slow
def test_a_missing_data_set_is_downloaded_once_and_then_trained_on(
    archive, place, capfd
):
    main.main([*COMMAND, *FIELDS])
    out, err = capfd.readouterr()
    data_dir = place.parent / "tfds"
    assert out == f"preparing cifar10 in {data_dir}\n"
    assert err.startswith("training on cifar10 ")
    folder = place / "runs" / "cifar10_simsiam"
    assert rows(folder)[-1]["step"] == 2
    archive.unlink()
    main.main([*COMMAND, *FIELDS])
    out, err = capfd.readouterr()
    assert out == ""
    assert "resumed from step 2 of 2" in err


def test_without_a_network_it_ends_within_seconds_in_one_line(
    place, monkeypatch, capfd
):
    url = "http://127.0.0.1:9/cifar-10-binary.tar.gz"  # nothing listens there
    monkeypatch.setattr(cifar10.Cifar10, "url_infos", {url: None})
    before = time.monotonic()
    with pytest.raises(SystemExit) as exit_:
        main.main(COMMAND)
    assert time.monotonic() - before < 20  # TFDS alone would try for 200 seconds
    assert exit_.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"error: {place.parent / 'tfds' / 'downloads' / 'manual'}")
    assert f"is missing and {url} does not answer" in line
    assert list(place.iterdir()) == []
    assert not (place.parent / "tfds").exists()


def test_a_wrong_field_is_refused_before_anything_is_downloaded(archive, place, capfd):
    with pytest.raises(SystemExit) as exit_:
        main.main([*COMMAND, "--config.optimizer.learning_rate=-1"])
    assert exit_.value.code == 2
    out, err = capfd.readouterr()
    assert "config.optimizer.learning_rate" in err
    assert out == ""
    assert archive.exists()
    assert not (place.parent / "tfds").exists()


def test_processes_that_prepare_one_data_set_wait_for_each_other(archive, tmp_path):
    del archive
    folder, results = str(tmp_path / "shared"), []
    threads = [
        threading.Thread(target=lambda: results.append(prepare("cifar10", folder)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line.split(" to ")[0].split(" in ")[0] for line in results) == [
        "cifar10 was prepared by another process",
        "wrote cifar10",
    ]
