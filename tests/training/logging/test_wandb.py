"""Weights & Biases logs the rows of metrics.jsonl to one W&B run, also when resumed."""

import json
import sys

import numpy as np
import pytest

from logo_jax.experiment import make_experiment
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.training.logging.wandb import WandbLogger
from tests.commands.test_main import records, tiny_config

WANDB = '''
"""The parts of wandb 0.31 that logo_jax calls; records the calls in a file."""
import json, pathlib

class Error(Exception):
    pass

def keep(file, *called):
    with file.open("a") as lines:
        lines.write(json.dumps(called) + "\\n")

class Settings(dict):
    pass

class Image:
    def __init__(self, pixels):
        self.shape = list(pixels.shape)

def init(*, project, id, resume, name, dir, config, settings):
    if project == "closed":
        raise Error("no API key\\nconfigured")
    run = Run()
    run.file, run.id = pathlib.Path(dir) / "called.jsonl", id or "a1b2"
    keep(run.file, "init", project, id, resume, name, config, settings)
    return run

class Run:
    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, row):
        keep(self.file, {k: getattr(v, "shape", v) for k, v in row.items()})

    def finish(self, exit_code):
        keep(self.file, "finish", exit_code)
'''


@pytest.fixture(name="wandb")
def fixture_wandb(tmp_path, monkeypatch):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    yield
    sys.modules.pop("wandb", None)


def start(folder, rows, resume_step=0):
    folder.mkdir(exist_ok=True)
    logger = WandbLogger(folder, "crops", {"seed": 0}, quiet=True)
    with MetricWriter(folder, resume_step=resume_step, loggers=[logger]) as writer:
        for step, values in rows:
            writer.write(step, values)
        writer.log_image(rows[-1][0], "knn", np.zeros((4, 5, 3), np.uint8))


@pytest.mark.usefixtures("wandb")
def test_a_resumed_run_keeps_its_id_and_logs_the_rows_of_metrics_jsonl(
    tmp_path,
):
    folder = tmp_path / "run"
    start(folder, [(1, {"loss": 2.0, "norm": float("nan")})])
    start(folder, [(2, {"loss": 1.0}), (2, {"knn/top1": 50.0})], resume_step=1)
    called = [json.loads(x) for x in (folder / "called.jsonl").read_text().splitlines()]
    starts = [call for call in called if call[0] == "init"]
    how = ["allow", "run", {"seed": 0}, {"silent": True, "console": "off"}]
    assert starts == [["init", "crops", id_, *how] for id_ in (None, "a1b2")]
    rows = [call[0] for call in called if isinstance(call[0], dict)]
    images = [row for row in rows if "knn" in row]
    assert images == [{"step": 1, "knn": [4, 5, 3]}, {"step": 2, "knn": [4, 5, 3]}]
    finite = [
        {name: x for name, x in row.items() if x is not None} for row in records(folder)
    ]
    assert [row for row in rows if row not in images] == finite
    assert called[-1] == ["finish", 0]


@pytest.mark.usefixtures("wandb")
def test_a_run_that_fails_is_marked_as_failed(tmp_path):
    logger = WandbLogger(tmp_path, "crops", {}, quiet=False)
    writer = MetricWriter(tmp_path, resume_step=0, loggers=[logger])
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    last = (tmp_path / "called.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == ["finish", 1]


@pytest.mark.usefixtures("wandb")
def test_a_refused_login_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="wandb login") as error:
        WandbLogger(tmp_path, "closed", {}, quiet=True)
    assert "config.monitor.wandb='closed': no API key" in str(error.value)


def test_a_missing_package_is_an_error_before_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    gone = tmp_path / "gone"
    config = tiny_config("cifar10_moco", "logo", gone, **{"monitor.wandb": "crops"})
    with pytest.raises(ValueError, match="pip install wandb"):
        make_experiment(config, make_mesh())
