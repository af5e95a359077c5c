"""Loading configs by name and variant, with overrides given as strings or values."""

import re

import numpy as np
import pytest

from logo_jax import configs
from logo_jax.configs import cifar10_moco
from logo_jax.training.workdir import flatten


def test_a_config_loaded_by_name_equals_that_of_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.load("cifar10_moco") == cifar10_moco.get_config()
    baseline = cifar10_moco.get_config("baseline")
    assert baseline.logo.update_kind == "none"
    assert configs.load("cifar10_moco:baseline") == baseline
    assert configs.load("configs/cifar10_moco.py:baseline") == baseline


def test_a_loaded_config_is_locked_and_a_new_object():
    config = configs.load("cifar10_moco", {"data.batch_size": 8})
    assert configs.load("cifar10_moco").data.batch_size == 512
    with pytest.raises(AttributeError):
        config.data.batch = 8


CROPS = "crops.global_crops"
TAKEN = [
    ("train.num_epochs", "50", 50),
    ("train.num_epochs", 50, 50),
    ("train.num_epochs", np.int64(50), 50),
    ("logo.weight", "-1e-3", -0.001),
    ("logo.weight", "2", 2.0),
    ("logo.weight", 2, 2.0),
    ("logo.weight", np.float32(0.5), 0.5),
    ("monitor.linear", "true", True),
    ("monitor.linear", "True", True),
    ("monitor.linear", "1", True),
    ("method.shuffle", "false", False),
    ("method.shuffle", "False", False),
    ("method.shuffle", "0", False),
    ("method.shuffle", False, False),
    ("data.path", "7", "7"),
    ("data.path", "/a b/ü=x", "/a b/ü=x"),
    ("seed", "3", 3),
    (CROPS, "(2, 16, (0.4, 1.0))", (2, 16, (0.4, 1.0))),
    (CROPS, " [2, 16, [0.4, 1.0]]", (2, 16, (0.4, 1.0))),
    (CROPS, [2, 16, [0.4, 1.0]], (2, 16, (0.4, 1.0))),
    ("monitor.knn", "((3, .1),)", ((3, 0.1),)),
    ("monitor.knn", "()", ()),
    ("optimizer.milestones", ".5", (0.5,)),
]


@pytest.mark.parametrize(("field", "given", "expected"), TAKEN)
def test_a_value_is_converted_to_the_type_of_the_field(field, given, expected):
    config = configs.load("cifar10_moco", {field: given})
    group, _, key = field.rpartition(".")
    value = (config[group] if group else config)[key]
    assert value == expected
    assert type(value) is type(expected)
    if isinstance(expected, tuple):
        assert repr(value) == repr(expected)


@pytest.mark.parametrize("name", ["simsiam", "moco", "byol", "swav"])
def test_every_field_accepts_its_value_as_a_string(name):
    config = configs.load(f"cifar10_{name}")
    texts = {field: str(x) for field, x in flatten(config.to_dict())}
    assert len(texts) > 70
    assert configs.load(f"cifar10_{name}:released", texts) == config


REFUSED = [
    ("train.num_epochs", "1.5", "config.train.num_epochs=1.5 must be a whole number"),
    ("train.num_epochs", "", "config.train.num_epochs= must be a whole number"),
    ("train.num_epochs", 2.0, "config.train.num_epochs=2.0 must be a whole number"),
    ("train.num_epochs", True, "=True must be a whole number, such as 200"),
    ("logo.weight", "much", "config.logo.weight=much must be a number, such as 0.0005"),
    ("logo.weight", True, "config.logo.weight=True must be a number"),
    ("logo.weight", None, "config.logo.weight=None must be a number"),
    ("monitor.linear", "maybe", "linear=maybe must be true or false, such as False"),
    ("monitor.linear", 1, "config.monitor.linear=1 must be true or false"),
    ("data.path", 7, "config.data.path=7 must be a string"),
    (CROPS, "(2, 8", "global_crops=(2, 8 must be a tuple, such as (2, 32, (0.4, 1.0))"),
    (CROPS, "print(1)", "config.crops.global_crops=print(1) must be a tuple"),
    (CROPS, 2, "config.crops.global_crops=2 must be a tuple"),
    ("data", "1", "config.data is a group of fields; set one of config.data."),
    ("batch_size", 8, "unknown field config.batch_size; the nearest is config.data.b"),
    (
        "data.batchsize",
        8,
        "field config.data.batchsize; the nearest is config.data.batch_s",
    ),
    ("seed.x", 8, "unknown field config.seed.x; the nearest is config.seed"),
    ("", 8, "unknown field config.; the nearest is"),
    ("method.name", "byol", "=byol cannot replace moco, because methods differ in "),
    ("train.num_steps", "twenty", "num_steps=twenty must be a whole number, such as 1"),
]


@pytest.mark.parametrize(("field", "given", "message"), REFUSED)
def test_the_error_for_a_wrong_value_or_name_is_one_line(field, given, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as raised:
        configs.load("cifar10_moco", {field: given})
    assert isinstance(raised.value, ValueError) or not isinstance(given, str)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "method", "remedy"),
    [
        ("folder", "moco", "use --config=folder_moco, or"),
        ("cifar10_swav", "simsiam", "use --config=cifar10_simsiam, or"),
        ("folder", "byol", "use --config=cifar10_byol or imagenet100_byol, or"),
        ("folder", "dino", "use byol, moco, simsiam, swav, or"),
    ],
)
def test_the_error_for_another_method_names_configs_of_it(config, method, remedy):
    with pytest.raises(ValueError, match=remedy):
        configs.load(config, {"method.name": method})


def test_the_error_for_an_unknown_variant_lists_all_variants():
    with pytest.raises(ValueError, match="variant 'nosuch' must be one of baseline, "):
        configs.load("folder:nosuch")


def test_the_error_for_an_unknown_config_names_the_nearest_one_that_can_be_trained():
    with pytest.raises(FileNotFoundError, match="the nearest is quickstart;") as error:
        configs.load("quikstart")
    assert "cifar10_moco, " in str(error.value)
    assert "base" not in str(error.value)


def test_a_file_of_the_user_is_run_again_at_each_load(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "my config ü.py"
    text = "from ml_collections import ConfigDict\nSEED = {}\n"
    text += "def get_config(): return ConfigDict({{'seed': SEED}})\n"
    for seed in (1, 2):
        file.write_text(text.format(seed, seed))
        for name in (str(file), "~/my config ü.py"):
            assert configs.load(name).to_dict() == {"seed": seed}
    assert list(tmp_path.iterdir()) == [file]  # no compiled code either
