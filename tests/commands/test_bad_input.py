"""Bad input is reported in one line, with exit code 2, and nothing is written."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import logo_jax
from logo_jax import configs, main
from logo_jax.configs import base
from logo_jax.experiment import make_experiment, make_spec
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import workdir
from tests.commands.test_main import TINY, tiny_config
from tests.data.pictures import write_folder
from tests.run_commands import evaluated

SIMSIAM = "configs/cifar10_simsiam.py:logo"
MOCO = "configs/cifar10_moco.py:logo"


def save(folder, split="train", count=24, side=8, dtype=np.uint8, **arrays):
    images = np.zeros((count, side, side, 3), dtype)
    arrays = {"images": images, "labels": np.arange(count) % 3} | arrays
    np.savez(folder / split, **{k: v for k, v in arrays.items() if v is not None})


@pytest.fixture(name="arrays")
def fixture_arrays(tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    save(folder)
    save(folder, "test", 10)
    return folder


@pytest.fixture(name="start")
def fixture_start(arrays, tmp_path, capsys):
    """A function that runs main on bad input; returns exit code and stderr lines."""

    def start(*changes, config=SIMSIAM, workdir=tmp_path / "run"):
        tiny = TINY | {"data.path": str(arrays)}
        if config == MOCO:
            tiny |= {"method.queue_size": 64, "batch_norm": "split:2"}
        given = {f"--config.{name}": value for name, value in tiny.items()}
        given = {} if config not in (SIMSIAM, MOCO) else given
        argv = [f"{name}={value}" for name, value in given.items()]
        argv = [f"--config={config}", f"--workdir={workdir}", *argv, *changes]
        with pytest.raises(SystemExit) as ended:
            main.main(argv)
        return ended.value.code, capsys.readouterr().err.splitlines()

    return start


def require_refused(result, fragment):
    code, lines = result
    (line,) = lines
    assert code == 2
    assert line.startswith("error: ")
    assert fragment in line


VALUES = [
    ("seed=-1", "config.seed=-1 must be a whole number, 0 or more"),
    ("seed=1.5", "config.seed=1.5"),
    ("seed=99999999999", "below 2**31"),
    ("seeds=0", "config.seeds=0 must be a whole number, 1 or more"),
    ("pairing=both", "pairing='both' must be one of"),
    ("batch_norm=split:0", "must be global, per_device or split:N"),
    ("batch_norm=split:2", "must have 2 images or more in each of its 8 groups (4 dev"),
    ("batch_norm=split:3", "batch_size=8 must be a multiple of"),
    ("train.accumulate=3", "multiple of 12 (4 devices, train.accumulate=3); use 12"),
    ("running_stats=some", "running_stats='some' must be one of all, globals"),
    ("data.batch_size=-8", "config.data.batch_size=-8 must be"),
    ("data.batch_size=many", "batch_size=many"),
    ("data.batch_size=9", "batch_size=9 must be a multiple of 4"),
    ("data.batch_size=500", "batch_size=500 exceeds the 24 training images"),
    ("data.source=zip", "source='zip' must be one of"),
    ("data.path=", "source='npz' needs path"),
    ("data.path=/no where/ü", "/no where/ü is not a folder"),
    ("data.path=hdfs://bucket/x", "data.path='hdfs://bucket/x' must be a path"),
    (
        "data.data_dir=abfs://b",
        "config.data.data_dir='abfs://b' must be a path of this",
    ),
    ("encoder.weights=https://h/x.pth", "'https://h/x.pth' must be a path of this"),
    ("train.start_from=az://b/run", "start_from='az://b/run' must be a path of this"),
    ("data.canvas=0", "config.data.canvas=0 must be a whole number, 1 or more"),
    ("data.max_corrupt=nan", "config.data.max_corrupt=nan must be a number from 0"),
    ("data.threads=-1", "config.data.threads=-1"),
    ("data.classes=list.txt", "needs source=folder"),
    ("crops.global_crops=(1,8,(.4,1.))", "crops per image, 2 or more"),
    ("crops.global_crops=(2,8)", "config.crops.global_crops=(2, 8) must be"),
    ("crops.local_crops=(2,8,(.6,.1))", "0 < min <= max <= 1"),
    ("crops.local_crops=(2,-8,(.1,.6))", "config.crops.local_crops=(2, -8,"),
    ("crops.local_crops=(3,8,(.1,.6))", "even number"),
    ("augment.flip_prob=1.5", "config.augment.flip_prob=1.5 must be a number from"),
    ("augment.solarize_prob=-1", "config.augment.solarize_prob=-1.0 must be a number"),
    ("augment.second.blur_prob=2", "config.augment.second.blur_prob=2.0 must be a num"),
    ("augment.second.blur_prob=often", "blur_prob=often must be a Python literal"),
    ("augment.second.blur_prob='1'", "second.blur_prob='1' must be a finite number"),
    ("augment.second.blur=1", "the nearest is config.augment.second.blur_prob"),
    ("augment.second.jitter=(1,1)", "config.augment.second.jitter=(1, 1) must be 4 f"),
    ("augment.extra=nowhere:change", "config.augment.extra='nowhere:change' cannot be"),
    ("augment.extra=math:pi", "must be a function (key, image) -> image, not float"),
    ("augment.extra=math:sin", "config.augment.extra='math:sin' raises TypeError for"),
    ("crops.aspect_ratio=(2.,1.)", "must be (min, max) with 0 < min <= max; the def"),
    ("augment.jitter=(.4,.4,.4)", "must be 4 finite numbers"),
    ("augment.jitter=(.4,.4,.4,.9)", "hue at most 0.5"),
    ("augment.blur_sigma=(2.,.1)", "0 < min <= max"),
    ("augment.std=(0.,.2,.2)", "std must be positive"),
    ("encoder.backbone=vgg", "backbone='vgg' must be one of"),
    ("encoder.backbone=alexnet", "needs one size, 16 px or more, for all crops"),
    ("encoder.width=0", "config.encoder.width=0 must be"),
    ("encoder.patch=0", "config.encoder.patch=0 must be a whole number, 1 or more"),
    ("encoder.frozen_patches=2", "frozen_patches=2 must be true or false"),
    ("encoder.dtype=int8", "dtype='int8' must be one of"),
    ("logo.weight=nan", "config.logo.weight=nan must be a finite number; the"),
    ("logo.noise=-1", "config.logo.noise=-1.0"),
    ("logo.update_kind=twice", "must be one of none, released, joint"),
    ("optimizer.learning_rate=inf", "config.optimizer.learning_rate=inf must be"),
    ("optimizer.learning_rate=1e39", "config.optimizer.learning_rate=1e+39"),
    ("optimizer.momentum=1", "config.optimizer.momentum=1.0 must be a number, 0"),
    ("optimizer.milestones=(.8,.6)", "must be increasing fractions of training"),
    ("optimizer.milestones=(60,80)", "must be increasing fractions of training"),
    ("optimizer.warmup_epochs=9", "must be shorter than the training of"),
    ("train.num_steps=-4", "config.train.num_steps=-4 must be"),
    ("train.num_epochs=0", "config.train.num_epochs=0"),
    ("train.log_every_steps=0", "config.train.log_every_steps=0"),
    (
        "monitor.knn=((3,0.1))",
        "config.monitor.knn=((3,0.1)) must be a tuple of tuples, such as "
        "((20, 0.07), (200, 0.1)), or ((20, 0.07),) for one",
    ),
    ("monitor.knn=((0,.1),)", "config.monitor.knn=((0, 0.1),) must be pairs"),
    ("monitor.knn=((3,0.01),)", "temperature >= 0.0125), at least one"),
    ("monitor.knn=((99,.1),)", "k=99 in monitor.knn exceeds the 24 examples"),
    ("monitor.crop=9", "config.monitor.crop=9 must be between"),
    ("method.predictor_hidden=0", "config.method.predictor_hidden=0"),
    ("method.queue=8", "queue"),
    ("logo.negatives=far", "config.logo.negatives='far' must be one of"),
    ("optimizer.name=lars", "update_kind='released' needs"),
    ("optimizer.name=adamw", "update_kind='released' needs"),
]


@pytest.mark.parametrize(("change", "fragment"), VALUES)
def test_a_bad_value_is_reported_in_one_line(change, fragment, start, tmp_path):
    require_refused(start(f"--config.{change}"), fragment)
    assert not (tmp_path / "run").exists()


def test_patches_that_do_not_divide_the_crops_are_refused(start, tmp_path):
    change = ("--config.encoder.backbone=vit_mini", "--config.encoder.patch=3")
    fragment = "config.encoder.patch=3 must divide the sides of all crops and of eval"
    require_refused(start(*change), fragment)
    assert not (tmp_path / "run").exists()


MOCO_VALUES = [
    ("method.queue_size=60", "queue_size=60 must be a multiple of the"),
    ("method.queue_size=0", "queue_size=0 must be > 0"),
    ("method.temperature=0", "config.method.temperature=0.0 must be > 0; try 0.1"),
    ("method.momentum=1.1", "config.method.momentum=1.1 must be in [0, 1]; try"),
    ("data.batch_size=12", "batch_size=12 must be a multiple of 8"),
]


@pytest.mark.parametrize(("change", "fragment"), MOCO_VALUES)
def test_a_bad_queue_or_batch_of_moco_is_reported(change, fragment, start, tmp_path):
    require_refused(start(f"--config.{change}", config=MOCO), fragment)
    assert not (tmp_path / "run").exists()


def test_batch_norm_of_one_image_a_device_is_refused_unless_it_is_global(start):
    result = start("--config.batch_norm=per_device", "--config.data.batch_size=4")
    require_refused(result, "use a batch size of 8, fewer groups, or global")
    config = configs.load(
        "cifar10_moco", {"data.batch_size": 4, "batch_norm": "global"}
    )
    make_spec(config.to_dict(), num_devices=4).check(4)


ARRAYS = [
    (lambda d: (d / "train.npz").unlink(), "train.npz is missing"),
    (lambda d: (d / "train.npz").write_bytes(b""), "is not an npz archive"),
    (lambda d: save(d, images=np.full((8, 8, 8, 3), 2, "f")), "got float32 [8,"),
    (lambda d: save(d, images=np.full((8, 8, 8, 3), np.nan)), "got float64 [8,"),
    (lambda d: save(d, images=np.zeros((9, 8, 8, 2), np.uint8)), "must be uint8 [n,"),
    (lambda d: save(d, count=0), "are empty"),
    (lambda d: save(d, side=0), "are empty"),
    (lambda d: save(d, images=np.array([{}], object)), "Object arrays"),
    (lambda d: save(d, labels=np.arange(25)), "25 labels for 24 images"),
    (lambda d: save(d, labels=np.full(24, -1)), "label -1 is negative"),
    (lambda d: save(d, labels=np.full(24, 2**40)), "too large"),
    (lambda d: save(d, labels=np.full(24, 40_000)), "at most 32768; number the class"),
    (lambda d: save(d, labels=np.zeros(24)), "got float64 [24]"),
    (lambda d: save(d, "test", labels=None), "test.npz are none"),
    (lambda d: save(d, "test", 4, labels=np.ones((4, 3), int)), "the same form"),
    (lambda d: save(d, "test", 4, side=9), "test.npz has size (9, 9)"),
]


@pytest.mark.parametrize(("spoil", "fragment"), ARRAYS)
def test_bad_arrays_are_reported_in_one_line(spoil, fragment, start, arrays, tmp_path):
    spoil(arrays)
    require_refused(start(), fragment)
    assert not (tmp_path / "run").exists()


def test_a_missing_class_list_is_reported(start, tmp_path):
    write_folder(tmp_path / "images", {"a": 1})
    source = "--config.data.source=folder", f"--config.data.path={tmp_path}/images"
    result = start(*source, "--config.data.classes=no such.txt")
    require_refused(result, "no such.txt cannot be read")
    assert not (tmp_path / "run").exists()


CONFIG_FILES = [
    ("def get_config(v=''):\n    raise RuntimeError('oh\\nno')", "RuntimeError: oh no"),
    ("def get_config(v=''):\n    raise ValueError('bad variant')", "bad variant"),
    ("import no_such_module", "No module named 'no_such_module'"),
    ("def get_config(:", "SyntaxError"),
    ("seed = 1", "must define a function get_config"),
    ("def get_config():\n    return {}", "takes 0 positional arguments"),
    ("def get_config(v=''):\n    return {'seed': 1}", "must return a ConfigDict"),
    (None, "is neither a file nor one of logo_jax's configs"),
]


@pytest.mark.parametrize(("text", "fragment"), CONFIG_FILES)
def test_a_bad_config_file_is_reported_in_one_line(text, fragment, start, tmp_path):
    file = tmp_path / "my config ü.py"
    if text is not None:
        file.write_text(text)
    require_refused(start(config=f"{file}:v"), fragment)
    assert not (tmp_path / "run").exists()


FLAGS = [
    (("--nonsense",), "nonsense"),
    (("extra",), "'extra' is not a flag"),
    (("--config.optimizer.learning_rat=1",), "learning_rat"),
    (("--config.data.batch_size",), "batch_size"),
    (("--config.data=1",), "config.data"),
    (("--config.monitor.projector=maybe",), "maybe"),
    (
        ("--config.optimizer.learning_rat=1",),
        "nearest is config.optimizer.learning_rate",
    ),
    (("--config.data.path",), "config.data.path=True must be a string"),
    (("--work=other",), "=other' is not a flag; the nearest is --workdir; see --help"),
    (("--data.path=x",), "not a flag; the nearest is --config.data.path; see --help"),
    (
        ("--num_steps", "3"),
        "'--num_steps' is not a flag; the nearest is --config.train",
    ),
    (("--process_id=x",), "--process_id: invalid int value: 'x'"),
    ((f"--config={MOCO}",), "--config=... must be given once"),
    (("--workdir=other",), "--workdir=... must be given once"),
]


@pytest.mark.parametrize(("arguments", "fragment"), FLAGS)
def test_a_bad_flag_is_reported_in_one_line(arguments, fragment, start, tmp_path):
    require_refused(start(*arguments), fragment)
    assert not (tmp_path / "run").exists()


def test_a_missing_flag_and_an_unknown_variant_are_reported(start, tmp_path):
    require_refused(start(config=""), "--config: '' is neither")
    require_refused(start(config="configs/folder.py:nosuch"), "variant 'nosuch' must")
    require_refused(start(workdir=""), "--workdir: the path is empty; give a path")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["main", "evaluate", "prepare", "doctor", "sweep"])
def test_a_command_without_arguments_reports_which_are_required(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(f"logo_jax.{name}").main([])
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        "error: .* required: .*; see --help|error: .* required; .*", line
    )


def test_a_workdir_that_is_a_file_or_inside_a_file_is_reported(start, tmp_path):
    file = tmp_path / "a file"
    file.write_text("kept")
    for place in (file, file / "run"):
        require_refused(start(workdir=place), f"and {file} is a file; use another")
    assert file.read_text() == "kept"


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", ""])
def test_a_workdir_with_a_damaged_config_is_reported(text, start, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(text, "latin-1")
    require_refused(start(), "config.json")
    assert (folder / "config.json").read_text("latin-1") == text


def test_a_checkpoints_folder_that_is_a_file_is_reported(start, tmp_path, arrays):
    folder = tmp_path / "run"
    workdir.claim_workdir(
        folder, tiny_config("cifar10_simsiam", "logo", arrays).to_dict()
    )
    (folder / "checkpoints").write_text("no folder")
    require_refused(start(), "must be writable (File exists)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"monitor": 3}, "config.monitor=3 must be a group of fields"),
        ({"seed": True}, "config.seed=True must be a whole number"),
        ({"optimizer": {"momentum": None}}, "config.optimizer.momentum=None"),
        ({"logo": {"reset_norm": "no"}}, "config.logo.reset_norm='no' must be True"),
        ({"data": {"path": "a\0b"}}, r"config.data.path='a\x00b' must be a path"),
    ],
)
def test_evaluate_reports_a_bad_value_in_a_runs_config(
    change, message, tmp_path, capsys
):
    config = base.get_config("simsiam").to_dict()
    for name, value in change.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="2"):
        evaluated(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_step_schedule_has_no_warm_up(start):
    schedule = "--config.optimizer.schedule=step"
    require_refused(
        start(schedule, "--config.optimizer.warmup_epochs=1"),
        "does not support warm-up",
    )


def test_a_folder_with_spaces_and_unicode_is_read(tmp_path):
    folder = tmp_path / "meine Bilder ü 図"
    write_folder(folder / "train", {"große Katze": 9, "b": 4})
    write_folder(folder / "val", {"große Katze": 2, "b": 2})
    (folder / "nur diese.txt").write_text("große Katze\n", "utf-8")
    changes = {"data.source": "folder", "data.classes": f"{folder}/nur diese.txt"}
    changes |= {"monitor.resize": 10, "monitor.crop": 8, "data.canvas": 16}
    config = tiny_config("cifar10_simsiam", "baseline", folder, **changes)
    experiment = make_experiment(config, make_mesh(jax.devices()[:1]))
    assert "9 images of" in experiment.loading
    ((examples, _),) = experiment.loader.batches(0, 1)
    assert examples.images.shape == (8, 16, 16, 3)


URL = "hdfs://bucket/run"
COMMANDS = [
    ("main", f"--config={SIMSIAM}", f"--workdir={URL}"),
    ("main", f"--config={SIMSIAM}", f"--from={URL}"),
    ("doctor", f"--config={SIMSIAM}", f"--workdir={URL}"),
    ("evaluate", f"--workdir={URL}"),
    ("sweep", "--sweep=sweeps/stl10_crop_ratio", f"--out={URL}"),
    ("embed", URL, "--workdir=run", "--out=x.npz"),
    ("convert", URL, "--out=x.safetensors"),
    ("prepare", "cifar10", f"--data_dir={URL}"),
    ("report", URL),
]


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_a_url_is_refused_in_every_command_and_nothing_is_written(
    line, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"logo_jax.{line[0]}").main(list(line[1:]))
    result = ended.value.code, capsys.readouterr().err.splitlines()
    require_refused(result, f"{URL} must be a path of this machine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        lambda: logo_jax.pretrain(URL, workdir="run"),
        lambda: logo_jax.pretrain(Path(URL), workdir="run"),
        lambda: logo_jax.pretrain(config="quickstart", workdir=URL),
        lambda: logo_jax.load_encoder(URL),
        lambda: logo_jax.Run(URL),
    ],
)
def test_a_url_is_refused_by_every_function(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="must be a path of this machine"):
        call()
    assert not list(tmp_path.iterdir())


WARN = """
from absl import logging
import logo_jax.main
logging.use_absl_handler()  # as some libraries do
logo_jax.main._cli.run(lambda: logging.warning("one line"))
"""


def test_a_warning_is_printed_once():
    done = subprocess.run(
        [sys.executable, "-c", WARN], capture_output=True, text=True, check=True
    )
    assert done.stderr == "WARNING: one line\n"
