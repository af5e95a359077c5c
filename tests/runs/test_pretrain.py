"""`logo_jax.pretrain`: the command's run from Python, on data in files or in memory."""

import json
import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

import jax
import nbclient
import nbformat
import numpy as np
import pytest

import logo_jax
from logo_jax import main
from logo_jax.configs import load
from logo_jax.runs import pretrain
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.preemption import InterruptHandler
from tests import backbones
from tests.commands.test_main import SPEED, TINY, fixture_arrays, records

__all__ = ["fixture_arrays"]

CONFIG = "cifar10_simsiam:baseline"
OWN = ("data.source", "crops.local_crops")  # set by the images and by the variant
FIELDS = {name: value for name, value in TINY.items() if name not in OWN}
LONG = FIELDS | {"train.num_steps": 10**6, "monitor.knn_every_steps": 0}


def measured(folder):
    """The metrics of a run without those that measure time."""
    rows = records(folder)
    return [{k: v for k, v in row.items() if k not in SPEED} for row in rows]


def untimed(printed):
    """The lines of a run without the lines of progress."""
    return [line for line in printed.splitlines() if not line.startswith("step ")]


def assert_equal_states(one, other):
    """Asserts that the files of the newest checkpoints are equal to the bit."""
    newest = [max((x / "checkpoints").iterdir()) for x in (one, other)]
    files = [sorted(f.relative_to(x) for f in x.rglob("*.safetensors")) for x in newest]
    assert files[0] == files[1] != []
    for file in files[0]:
        assert (newest[0] / file).read_bytes() == (newest[1] / file).read_bytes()


def interrupt(folder, number=signal.SIGINT):
    """Sends a signal to this process when a run has written a row of metrics."""

    def send():
        file, never = folder / "metrics.jsonl", threading.Event()
        while not (file.exists() and file.stat().st_size):
            never.wait(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_images_with_several_labels_are_measured_by_their_own_metric(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (32, 8, 8, 3), np.uint8)
    labels = 2 * rng.integers(0, 2, (32, 3)) - 1
    fields = FIELDS | {"data.val_size": 8}
    run = logo_jax.pretrain(
        (images, labels), config=CONFIG, workdir=tmp_path / "run", **fields
    )
    (metric,) = {x for row in run.metrics for x in row if x.startswith("knn/")}
    assert metric.endswith("/map")
    assert "map" in run.report().read_text()


@pytest.mark.slow
def test_a_call_and_the_command_are_one_run(arrays, tmp_path, capfd):
    """Equal rows and states; and each resumes what the other began."""
    called, commanded = tmp_path / "called", tmp_path / "commanded"
    fields = FIELDS | {"data.source": "npz", "data.path": str(arrays)}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    main.main([f"--config={CONFIG}", f"--workdir={commanded}", *flags])
    lines = untimed(capfd.readouterr().err)
    run = logo_jax.pretrain(config=CONFIG, workdir=called, **fields)
    printed = capfd.readouterr().err.replace("called", "commanded")
    assert untimed(printed) == lines
    assert measured(called) == measured(commanded)
    assert_equal_states(called, commanded)
    assert run.metrics == records(called)
    assert run.config == workdir.read_config(commanded)
    again = logo_jax.pretrain(config=run.config, workdir=commanded)
    assert "resumed from step 4 of 4" in capfd.readouterr().err
    assert again.metrics == records(commanded)
    folder = logo_jax.pretrain(str(arrays), config=CONFIG, workdir=called, **FIELDS)
    assert folder.config == run.config


@pytest.mark.slow
def test_an_interrupted_run_is_saved_and_the_same_call_resumes_it(
    arrays, tmp_path, capfd
):
    call = {"config": CONFIG, "images": str(arrays)}
    folder = tmp_path / "stopped"
    before = signal.getsignal(signal.SIGINT)
    thread = interrupt(folder)
    run = logo_jax.pretrain(**call, workdir=folder, **LONG)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    last = run.metrics[-1]["step"]
    line = f"stopped by SIGINT after step {last}, which is saved; repeat the call to"
    assert line in capfd.readouterr().err
    more = {**run.config, "train": {**run.config["train"], "num_steps": last + 2}}
    config_file = folder / "config.json"
    config_file.write_text(json.dumps(more))  # the first run would take too long
    logo_jax.pretrain(config=more, workdir=folder)
    assert f"resumed from step {last} of {last + 2}" in capfd.readouterr().err
    whole = tmp_path / "whole"
    logo_jax.pretrain(config=more, workdir=whole, quiet=True)
    assert capfd.readouterr().err == ""
    assert measured(folder) == measured(whole)
    assert_equal_states(folder, whole)


@pytest.fixture(name="usual_interrupt")
def fixture_usual_interrupt():
    """Python's reaction to SIGINT, which a shell may have turned off for the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_interrupt")
def test_a_second_interrupt_has_its_usual_effect():
    before = signal.getsignal(signal.SIGINT)
    with InterruptHandler() as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGINT)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_no_stop_is_requested_in_another_thread():
    entered = []

    def enter():
        with InterruptHandler() as stop:
            entered.append(stop.requested())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [False]


def test_a_sigterm_is_passed_on_after_the_state_is_saved(arrays, tmp_path):
    call = {"config": CONFIG, "images": str(arrays)}
    received = []

    def handle(number, frame):
        del number, frame
        with CheckpointManager(tmp_path / "checkpoints", read_only=True) as saved:
            received.append(saved.steps()[-1])

    before = signal.signal(signal.SIGTERM, handle)
    try:
        thread = interrupt(tmp_path, signal.SIGTERM)
        run = logo_jax.pretrain(**call, workdir=tmp_path, quiet=True, **LONG)
        thread.join()
        assert received == [run.metrics[-1]["step"]]
    finally:
        signal.signal(signal.SIGTERM, before)


def process_state():
    """What a call could change in its process and must not."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    return {
        "signals": [*handlers, signal.set_wakeup_fd(-1)],
        "jax": dict(jax.config.values),
        "logging": (logging.getLogger().handlers[:], logging.getLogger().level),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "warnings": warnings.filters[:],
        "random": [str(x) for x in np.random.get_state()],  # noqa: NPY002
        "streams": (sys.stdout, sys.stderr),
    }


@pytest.mark.slow
def test_arrays_are_trained_on_and_recognized(tmp_path):
    """The run resumes with equal arrays only; nothing else in the process changes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (34, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(34) % 3
    call = {"config": CONFIG, "workdir": tmp_path / "run", "quiet": True}
    fields = FIELDS | {"data.val_size": 10}
    before = process_state()
    run = logo_jax.pretrain((images, labels), **call, **fields)
    assert process_state() == before
    assert [row["step"] for row in run.metrics] == [1, 2, 2, 3, 4, 4]
    assert "knn/k3_t0.1/top1" in run.metrics[-1]
    again = logo_jax.pretrain((images.copy(), labels.tolist()), **call, **fields)
    assert again.metrics == run.metrics
    other = images.copy()
    other[33, 7, 7, 2] ^= 1
    for wrong in ((other, labels), (images, labels[::-1]), images):
        wanted = fields if isinstance(wrong, tuple) else FIELDS
        with pytest.raises(logo_jax.InputError, match=r"run of another config .*name"):
            logo_jax.pretrain(wrong, **call, **wanted)
    evaluated = run.evaluate("knn", trivial_baselines=True)
    top1 = "knn/k3_t0.1/top1"
    assert evaluated["values"][top1] == run.metrics[-1][top1]
    assert evaluated["splits"] == {"bank": 24, "queries": 10}
    name = "knn-trivial_baselines-step_4.json"
    assert evaluated["file"] == str(tmp_path / "run" / "evaluations" / name)
    features = run.encoder(images)
    assert features.shape[0] == 34
    assert np.ptp(features, axis=0).max() > 0
    page = run.report().read_text()
    assert "No figures of" not in page
    elsewhere = logo_jax.Run(tmp_path / "run").report(tmp_path / "page")
    assert elsewhere == tmp_path / "page" / "index.html"
    line = "were passed to logo_jax.pretrain and are not stored"
    assert line in elsewhere.read_text()


def test_a_function_or_class_is_named_by_its_import_path(arrays, tmp_path):
    fields = FIELDS | {"encoder.backbone": backbones.TwoConvolutions}
    call = {"config": CONFIG, "quiet": True}
    run = logo_jax.pretrain(arrays, workdir=tmp_path / "run", **call, **fields)
    assert run.config["encoder"]["backbone"] == "tests.backbones:TwoConvolutions"
    assert run.encoder(np.zeros((1, 8, 8, 3), np.uint8)).shape[0] == 1

    def inside():
        pass

    fields = FIELDS | {"encoder.backbone": inside}
    with pytest.raises(logo_jax.InputError, match="at the top level of a module"):
        logo_jax.pretrain(arrays, workdir=tmp_path / "no", **call, **fields)
    assert not (tmp_path / "no").exists()


SMALL = np.zeros((300, 32, 32, 3), np.uint8)
WRONG = [
    ({}, "images or config must be given"),
    ({"config": "cifar10_simsiam", "workdir": ""}, "workdir='' must be the folder"),
    ({"images": "cifar10"}, "workdir=None must be the folder of the run"),
    ({"images": SMALL[:1], "workdir": "run"}, "has 1 image, but a training step needs"),
    ({"images": SMALL / 255, "workdir": "run"}, "must be uint8 .* got float64"),
    ({"images": "no/such", "workdir": "run"}, "no/such is not a folder; give"),
    ({"images": "no.csv", "workdir": "run"}, "no.csv is not a folder; give a folder"),
    ({"images": Path("coco/2017"), "workdir": "run"}, "coco/2017 is not a folder"),
    ({"images": Path("cifar10"), "workdir": "run"}, "cifar10 is not a folder"),
    (
        {"images": "voc/2007", "workdir": "run", "data.data_dir": "/nowhere"},
        "not prepared in /nowhere",
    ),
    ({"images": ["/", "no/such"], "workdir": "run"}, "no/such is not a folder"),
    ({"images": ["a,b", "c"], "workdir": "run"}, "a,b: its name must have no comma"),
    ({"images": "no_such", "workdir": "run"}, "no_such"),
    ({"config": "no_such", "workdir": "run"}, "is neither a file nor one of"),
    ({"config": "quickstart", "train.steps": 5}, "unknown field config.train.steps"),
    ({"config": "quickstart", "data.batch_size": 0}, "data.batch_size=0 must be"),
    ({"config": "quickstart", "encoder.backbone": "nowhere:net"}, "cannot be imported"),
    ({"config": "quickstart", "method.name": "nowhere:M"}, "cannot be imported"),
    (
        {"config": "quickstart", "method.name": "logo_jax.losses:info_nce"},
        r"config.method.name='logo_jax.losses:info_nce' must be a dataclass",
    ),
    (
        {"config": "quickstart", "method.name": "examples.own_method:BarlowTwins"},
        "config.method.off_diagonal is missing",
    ),
    (
        {
            "config": "quickstart",
            "method.name": "examples.own_method:BarlowTwins",
            "method.off_diagonal": "-1",
        },
        "config.method.off_diagonal=-1 must be a finite number, 0 or more",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_bad_input_is_one_line_and_nothing_is_written(
    call, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(logo_jax.InputError, match=message) as caught:
        logo_jax.pretrain(**call)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"protocol": "vote"}, "protocol='vote' must be one of knn, linear"),
        ({"recipe": "mine", "protocol": "linear"}, "recipe='mine' must be one of moco"),
        ({"metric": "map"}, "--metric is not an option of --protocol=knn"),
    ],
)
def test_a_wrong_evaluation_is_refused(call, message, tmp_path):
    workdir.claim_workdir(tmp_path, load(CONFIG, FIELDS).to_dict())
    with pytest.raises(ValueError, match=message):
        logo_jax.Run(tmp_path).evaluate(**call)
    assert not (tmp_path / "evaluations").exists()


def test_the_list_of_a_config_is_not_used_for_other_images(tmp_path):
    for path, list_file in (("/old", ""), (tmp_path, "labels.csv"), ("", "labels.csv")):
        fields = {"data.list": "labels.csv", "data.path": str(path)}
        chosen, _ = pretrain._with_images(tmp_path, load("folder", fields), {})
        assert chosen["data"]["list"] == list_file
        assert chosen["data"]["path"] == str(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="it is not the folder of a run"):
        logo_jax.Run(tmp_path)


NOTEBOOK = """
import os, signal, threading, time, pathlib, logo_jax
folder = pathlib.Path({folder!r})
def interrupt():
    while not (folder / "metrics.jsonl").exists() or not logo_jax.Run(folder).metrics:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
call = dict(config={config!r}, workdir=folder, **{fields!r})
first = logo_jax.pretrain(**call)
print("first", first.metrics[-1]["step"])
%%
second = logo_jax.pretrain(**call)
print("second", second.metrics[-1]["step"])
%%
try:
    logo_jax.pretrain(**call | {{"data.batch_size": 7}})
except logo_jax.InputError as error:
    print("refused", error)
"""


@pytest.mark.slow
def test_a_notebook_trains_interrupts_and_resumes_with_the_same_numbers(
    arrays, tmp_path
):
    """The kernel gets a real interrupt; the progress is one line that is redrawn."""
    fields = FIELDS | {"data.source": "npz", "data.path": str(arrays)}
    fields |= {"train.num_steps": 300, "monitor.knn_every_steps": 0}
    text = NOTEBOOK.format(folder=str(tmp_path / "noted"), config=CONFIG, fields=fields)
    cells = [nbformat.v4.new_code_cell(part) for part in text.split("%%")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    done = nbclient.NotebookClient(notebook, timeout=None).execute()
    printed = ["".join(out.get("text", "") for out in c.outputs) for c in done.cells]
    assert "stopped by SIGINT after step" in printed[0]
    assert "\rstep " in printed[0]
    assert "first 300" not in printed[0]
    assert "resumed from step" in printed[1]
    assert "second 300" in printed[1]
    assert "refused" in printed[2]
    assert "use the old values, or another --workdir" in printed[2]
    folder = tmp_path / "commanded"
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    main.main([f"--config={CONFIG}", f"--workdir={folder}", "--quiet", *flags])
    assert measured(folder) == measured(tmp_path / "noted")
