"""Typed config groups: every field has one rule and one default."""

import dataclasses
import importlib
import inspect
import math
import pathlib
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from logo_jax.augment import AugmentSpec
from logo_jax.configs import base
from logo_jax.experiment import config as typed
from logo_jax.experiment import make_spec, parse
from logo_jax.experiment.methods import BASES
from logo_jax.methods import BYOL, LearnedAffinity, LoGo, MoCo, SimSiam, SwAV
from logo_jax.methods.base import ENCODER, Forward, TrainState
from logo_jax.methods.gradient import GradientMethod
from logo_jax.methods.multi_crop import encode_views
from logo_jax.training import workdir
from tests.golden.tiny import TinyBackbone

WRONG = (None, "", "1", -1, 0.5, math.nan, math.inf, 10**12, True, (), [], {}, ((),))
METHODS = pytest.mark.parametrize("method", base.METHODS)


def changed(config, name, value):
    """Returns the config as a dict in which the field `name` has another value."""
    changed = config.to_dict()
    *groups, field = name.split(".")
    inner = changed
    for group in groups:
        inner = inner[group]
    inner[field] = value
    return changed


def accepts(config, name, value):
    try:
        make_spec(changed(config, name, value), num_devices=1)
    except (ValueError, TypeError):
        return False
    return True


@METHODS
def test_a_field_takes_its_default_and_no_value_of_another_type(method):
    config = base.get_config(method)
    parse(config)
    defaults = dict(workdir.flatten(config.to_dict()))
    for name, default in defaults.items():
        taken = [value for value in WRONG if accepts(config, name, value)]
        usual = defaults[name.replace("second.", "")]  # if the default is None
        kind = (int, float) if isinstance(usual, float) else type(usual)
        same = (kind, type(default))
        assert all(isinstance(value, same) for value in taken), (name, taken)
        assert not any(isinstance(x, float) and not math.isfinite(x) for x in taken)


@pytest.mark.parametrize("variant", base.VARIANTS)
def test_published_configs_keep_the_rules(variant):
    for file in pathlib.Path(base.__file__).parent.glob("[!b_]*.py"):
        module = importlib.import_module(f"logo_jax.configs.{file.stem}")
        parse(module.get_config(variant))


def test_an_error_names_the_field_the_rule_and_the_default():
    config = changed(base.get_config("simsiam"), "data.batch_size", 1)
    message = (
        r"config.data.batch_size=1 must be a whole number, 2 or more, below 2\*\*31; "
        "the default is 512"
    )
    with pytest.raises(ValueError, match=message):
        parse(config)


@pytest.mark.parametrize(
    ("group", "field", "hint"),
    [
        ("train", "num_step", "did you mean num_steps?"),
        ("method", "queue", "did you mean queue_size?"),
        ("data", "xyz", "remove it"),
        ("augment", "flip", "did you mean flip_prob?"),
        ("augment.second", "blurr_prob", "did you mean blur_prob?"),
        ("augment.second", "std", "see configs/base.py"),
    ],
)
def test_an_unknown_field_is_refused_with_a_suggestion(group, field, hint):
    config = changed(base.get_config("moco"), f"{group}.{field}", 3)
    with pytest.raises(
        ValueError, match=f"unknown config field config.{group}.{field}"
    ) as e:
        make_spec(config, num_devices=1)
    assert hint in str(e.value)


@pytest.mark.parametrize(
    "name", ["train.num_steps", "method.queue_size", "augment.std"]
)
def test_a_missing_field_is_refused(name):
    config = base.get_config("moco").to_dict()
    group, field = name.split(".")
    del config[group][field]
    with pytest.raises(ValueError, match=f"config.{name} is missing"):
        make_spec(config, num_devices=1)


@pytest.mark.parametrize(
    "kind", [AugmentSpec, MoCo, SwAV, LoGo, LearnedAffinity, SimSiam, BYOL]
)
def test_a_knob_has_no_second_default_in_a_class(kind):
    config = base.get_config("moco").to_dict()
    groups = [config, *(group for group in config.values() if isinstance(group, dict))]
    groups += [base.get_config(name).to_dict()["method"] for name in base.METHODS]
    knobs = {name for group in groups for name in group} - {"running_stats", "dtype"}
    for field in dataclasses.fields(kind):
        if field.name in knobs and field.name != "name":
            assert field.default is dataclasses.MISSING, field.name


@METHODS
def test_a_methods_knobs_are_those_of_its_class_and_its_factory(method):
    entry = BASES[method]
    own = {
        p.name
        for p in inspect.signature(entry.derive).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    fields = {field.name for field in dataclasses.fields(entry.kind)}
    knobs = set(base.get_config(method).method) - {"name"}
    assert own <= knobs
    assert knobs - own <= fields


@dataclasses.dataclass(frozen=True)
class Scaled(GradientMethod):
    """A user-defined method: the mean square of embeddings, with a knob."""

    encoder: nn.Module
    tx: optax.GradientTransformationExtraArgs
    pair_weights: np.ndarray
    running_stats: str
    scale: float

    trains = (ENCODER,)

    def init(self, key, batch):
        view = batch.global_crops[:1, 0]
        variables = self.encoder.init(key, view, train=False)
        params = {ENCODER: variables["params"]}
        stats = {ENCODER: variables.get("batch_stats", {})}
        states = {"base": self.tx.init(params)}
        return TrainState(jnp.zeros((), jnp.int32), params, stats, states, {})

    def loss(self, state, batch, key):
        del key
        encoded = encode_views(self.encoder, state.variables(ENCODER), batch, [0, 1])
        loss = self.scale * jnp.mean(encoded.embeddings**2)
        stats = {ENCODER: encoded.batch_stats}
        return loss, Forward(encoded.embeddings, stats, {}, {})


class Backbone(TinyBackbone):
    """A user-defined backbone with one of the encoder group's options."""

    norm: object = None
    dtype: object = None
    width: int = 3


def test_a_method_and_a_backbone_are_found_by_import_path():
    path = f"{__name__}:Scaled"
    config = base.get_config(path, {"scale": 2.0})
    config.logo.update_kind = "none"
    config.encoder.backbone = f"{__name__}:Backbone"
    config.encoder.width = 5
    spec = make_spec(config.to_dict(), num_devices=1)
    assert isinstance(spec.method, Scaled)
    assert spec.method.scale == 2.0
    assert isinstance(spec.encoder.backbone, Backbone)
    assert spec.encoder.backbone.width == 5
    assert jax.eval_shape(spec.init).memory == {}
    with pytest.raises(ValueError, match="config.method.scale='2' must be a finite"):
        make_spec(changed(config, "method.scale", "2"), num_devices=1)
    with pytest.raises(ValueError, match="unknown config field config.method.scal"):
        make_spec(changed(config, "method.scal", 2.0), num_devices=1)


@dataclasses.dataclass(frozen=True)
class Chosen(Scaled):
    """A user-defined method whose field has no rule."""

    reduction: Literal["mean", "sum"] = "mean"


def test_a_field_of_ones_own_without_a_rule_names_the_types_that_have_one():
    config = base.get_config(f"{__name__}:Chosen", {"scale": 1.0, "reduction": "sum"})
    config.logo.update_kind = "none"
    with pytest.raises(ValueError, match="reduction has the annotation .*use int, flo"):
        make_spec(config.to_dict(), num_devices=1)


def test_an_import_path_without_an_object_is_refused():
    config = base.get_config("simsiam")
    config.encoder.backbone = "no_such_module:Net"
    with pytest.raises(ValueError, match="cannot be imported: No module named"):
        make_spec(config, num_devices=1)


def test_rules_take_their_limits():
    assert typed.whole(2).allows(2)
    assert not typed.whole(2).allows(1)
    assert not typed.whole(0).allows(True)
    assert not typed.whole(0).allows(2**31)
    assert typed.crops(2).allows((2, 8, (0.1, 1.0)))
    assert not typed.crops(2).allows((2, 8, (0.6, 0.1)))
    assert not typed.NUMBER.allows(np.inf)
