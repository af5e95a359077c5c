"""Configs of older versions, and variants of experiments."""

import pytest

from logo_jax.configs import base
from logo_jax.experiment import parse


def old(method="moco"):
    """A config.json with the field names of an older version."""
    config = base.get_config(method).to_dict()
    for before, now in base.RENAMED.items():
        (group, name), new = before.split("."), now.split(".")[1]
        if new in config[group]:
            config[group][name] = config[group].pop(new)
    config["data"]["loader"] = "resident"
    del config["monitor"]["wandb"], config["data"]["canvas"]
    for name in ("second", "extra", "solarize_prob"):
        del config["augment"][name]
    del config["crops"]["aspect_ratio"]
    return config


@pytest.mark.parametrize("method", base.METHODS)
def test_an_old_config_is_read_with_its_old_names_and_gets_defaults(method):
    saved = old(method) | {"seed": 7}
    saved["data"]["held_out"] = 300
    config = base.complete(saved)
    assert parse(config).seed == 7
    assert config["data"]["val_size"] == 300
    assert config["data"]["loader"] == "on_device"
    assert (config["monitor"]["wandb"], config["data"]["canvas"]) == ("", 512)
    assert parse(config).augment == parse(base.get_config(method)).augment
    assert config["crops"]["aspect_ratio"] == (3 / 4, 4 / 3)
    assert "held_out" not in config["data"]
    assert saved["data"]["held_out"] == 300  # the argument is not changed


def test_a_dict_that_is_not_a_config_is_not_changed():
    probe = {"recipe": {"schedule": "step"}, "seed": 0}
    assert base.complete(probe) == probe
    assert base.complete({"method": 3, "monitor": 4}) == {"method": 3, "monitor": 4}


def test_a_variant_changes_the_experiments_own_numbers():
    config = base.get_config("moco")
    config.crops.global_crops = (2, 48, (0.5, 1.0))
    config.train.num_epochs = 30
    base.with_variant(config, "baseline_400", baseline_area=(0.1, 0.9))
    assert config.crops.global_crops == (2, 48, (0.1, 0.9))
    assert (config.crops.local_crops[0], config.train.num_epochs) == (0, 60)
    assert (config.pairing, config.logo.update_kind) == ("one_way", "none")
