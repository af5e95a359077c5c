"""The config as typed groups, with the allowed values of every field.

`parse` converts a config, from a config file or from a run's config.json, to a
`Config`, and raises an error for unknown, missing and wrong fields. Defaults are in
`configs/base.py`. A new field needs one line there, with its default and meaning, and
one line here, with its type and allowed values. Fields of an augmentation policy are
typed in `augment/color.py`. Fields of a base method (knobs) are typed in the method's
class or, if the class's field is computed from the config's, in
`experiment/methods.py`.
"""

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    NamedTuple,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from logo_jax.augment.color import BYTES, AugmentSpec, Extra
from logo_jax.augment.random_crop import CropSpec
from logo_jax.configs import base
from logo_jax.data.load import LAYOUTS, DataLocation
from logo_jax.evaluation.knn import COLDEST
from logo_jax.experiment.defaults import usual
from logo_jax.methods.affinity import CHOICES
from logo_jax.methods.logo import UPDATES
from logo_jax.methods.pairing import PAIRINGS
from logo_jax.storage.paths import parse_path, parse_paths
from logo_jax.training.collapse import POLICIES

INT_MAX = int(np.iinfo(np.int32).max)
FLOAT_MAX = float(np.finfo(np.float32).max)
SCHEDULES = ("cosine", "step", "constant")
Group = TypeVar("Group")


class Rule(NamedTuple):
    """The values that a field may have, in addition to its type.

    Attributes:
        text: description of the values; completes "must be".
        allows: function from a value of any type to whether the field may have it.
    """

    text: str
    allows: Callable[[Any], bool]


def whole(low: int, high: int = INT_MAX) -> Rule:
    """Returns the rule for an integer from low to high."""
    limit = ", below 2**31" if high == INT_MAX else f", at most {high:,}"
    return Rule(
        f"a whole number, {low} or more{limit}",
        lambda value: is_whole(value) and low <= value <= high,
    )


def one_of(names: Sequence[str]) -> Rule:
    """Returns the rule for one of several names."""
    return Rule(f"one of {', '.join(names)}", lambda value: value in tuple(names))


def crops(low: int) -> Rule:
    """Returns the rule for a group of crops, with at least `low` crops per image."""

    def allows(value: Any) -> bool:
        match value:
            case (int(count), int(side), (smallest, largest)):
                counted = is_whole(count) and is_whole(side) and count >= low
                areas = is_number(smallest) and is_number(largest)
                return counted and side >= 1 and areas and 0 < smallest <= largest <= 1
        return False

    return Rule(
        f"(crops per image, {low} or more; side in pixels; "
        "(min, max) area with 0 < min <= max <= 1)",
        allows,
    )


def is_whole(value: Any) -> bool:
    """Whether the value is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether the value is an int or a float that float32 can hold; NaN is not."""
    known = is_whole(value) or isinstance(value, float)
    return known and -FLOAT_MAX <= value <= FLOAT_MAX


def _is_range(value: Any) -> bool:
    match value:
        case (low, high):
            return is_number(low) and is_number(high) and 0 < low <= high
    return False


def _is_value_range(value: Any) -> bool:
    match value:
        case (low, high):
            return is_number(low) and is_number(high) and low < high
    return value == ()


def _are_milestones(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and all(is_number(part) and 0 < part < 1 for part in value)
        and all(a < b for a, b in zip(value, value[1:], strict=False))
    )


def _are_knn_settings(value: Any) -> bool:
    def is_setting(setting: Any) -> bool:
        match setting:
            case (k, t):
                return is_whole(k) and k >= 1 and is_number(t) and t >= COLDEST
        return False

    return isinstance(value, tuple) and bool(value) and all(map(is_setting, value))


def _are_paths(value: Any) -> bool:
    try:
        return STRING.allows(value) and bool(parse_paths(value))
    except ValueError:
        return False


def _is_path(value: Any) -> bool:
    try:
        return STRING.allows(value) and bool(parse_path(value))
    except ValueError:
        return False


def _is_label_pattern(value: Any) -> bool:
    try:
        return value == "" or re.compile(value).groups == 1
    except (re.error, TypeError):
        return False


NUMBER = Rule("a finite number", is_number)
NOT_NEGATIVE = Rule("a finite number, 0 or more", lambda x: is_number(x) and x >= 0)
FRACTION = Rule("a number from 0 to 1", lambda x: is_number(x) and 0 <= x <= 1)
BELOW_1 = Rule("a number, 0 or more and below 1", lambda x: is_number(x) and 0 <= x < 1)
MILESTONES = Rule("increasing fractions of training between 0 and 1", _are_milestones)
KNN_SETTINGS = Rule(
    f"pairs (neighbors >= 1, temperature >= {COLDEST}), at least one",
    _are_knn_settings,
)
RANGE = Rule("(min, max) with 0 < min <= max", _is_range)
VALUE_RANGE = Rule("(min, max) with min < max, or () to measure it", _is_value_range)
STRING = Rule("a string", lambda x: isinstance(x, str) and "\0" not in x)
PATH = Rule(
    "a path of this machine or in a bucket (gs:// or s3://), or '' for none", _is_path
)
PATHS = Rule(
    "a path of this machine or in a bucket (gs:// or s3://), or several divided by "
    "commas, or '' for none",
    _are_paths,
)
FUNCTION = Rule(
    "an import path package.module:function, a function, or '' for none",
    lambda x: STRING.allows(x) or callable(x),
)
LABEL_PATTERN = Rule(
    "a regular expression with one group, which is the class, or '' for none",
    _is_label_pattern,
)
SWITCH = Rule("True or False", lambda x: isinstance(x, bool))
PLAIN = {int: whole(-INT_MAX), float: NUMBER, str: STRING, bool: SWITCH}

NotNegative: TypeAlias = Annotated[float, NOT_NEGATIVE]
AtLeast0: TypeAlias = Annotated[int, whole(0)]
AtLeast1: TypeAlias = Annotated[int, whole(1)]
LocalPath: TypeAlias = Annotated[str, PATH]
LocalPaths: TypeAlias = Annotated[str, PATHS]
CropTuple: TypeAlias = tuple[int, int, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images are read, and how."""

    source: str
    name: str
    path: LocalPaths
    list: LocalPaths
    columns: str
    layout: Annotated[str, one_of(LAYOUTS)]
    data_dir: LocalPath
    classes: LocalPath
    label_pattern: Annotated[str, LABEL_PATTERN]
    val_size: AtLeast0
    canvas: AtLeast1
    loader: Annotated[str, one_of(("auto", "on_device", "streaming"))]
    max_corrupt: Annotated[float, FRACTION]
    max_pixels: AtLeast1
    bit_depth: Annotated[int, whole(9, 16)]
    channels: Annotated[int, whole(1, 1024)]
    dtype: Annotated[str, one_of(("auto", "uint8", "uint16", "float32"))]
    value_range: Annotated[tuple[float, ...], VALUE_RANGE]
    reader: str
    threads: Annotated[int, whole(0, 1024)]
    workers: Annotated[int, whole(0, 1024)]
    batch_size: Annotated[int, whole(2)]

    @property
    def location(self) -> DataLocation:
        """The fields that determine which images are read."""
        names = [field.name for field in dataclasses.fields(DataLocation)]
        return DataLocation(**{name: getattr(self, name) for name in names})

    def num_bytes(self, canvas: tuple[int, int]) -> int:
        """Returns the bytes of an image on a canvas of this (height, width)."""
        decoding = self.location.decoding
        pixel = self.channels * np.dtype(decoding.dtype or "uint8").itemsize
        return canvas[0] * canvas[1] * pixel


@dataclasses.dataclass(frozen=True)
class CropsConfig:
    """Global and local crops of an image."""

    global_crops: Annotated[CropTuple, crops(2)]
    local_crops: Annotated[CropTuple, crops(0)]
    aspect_ratio: Annotated[tuple[float, float], RANGE]

    @property
    def specs(self) -> dict[str, CropSpec]:
        """The specs of the crops, as arguments of `augment.make_views`."""
        groups = {"global_crops": self.global_crops, "local_crops": self.local_crops}
        return {
            name: CropSpec(*crops, aspect=self.aspect_ratio)
            for name, crops in groups.items()
        }


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the crops.

    Attributes:
        policy: augmentation of all crops, but the second global crop may have its own.
        second: augmentation of the second global crop; None: `policy`.
        extra: a change of one's own of every crop: the import path of a function, or
            the function (`augment.augment_crop` describes it); "": none.
    """

    policy: AugmentSpec
    second: AugmentSpec | None
    extra: str | Extra


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Backbone and projection head."""

    backbone: str
    stem: Annotated[str, one_of(("cifar", "imagenet"))]
    width: AtLeast1
    zero_init_residual: bool
    patch: AtLeast1
    frozen_patches: bool
    head: str
    head_layers: Annotated[int, whole(2)]
    head_hidden: AtLeast1
    embedding_dim: AtLeast1
    dtype: str
    weights: LocalPath
    weights_record: str
    remat: bool


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """The base method, to which LoGo's repulsion can be added.

    Attributes:
        name: name of the method, such as simsiam, or the import path of its class.
        knobs: values of the method's fields in the config, by name.
    """

    name: str
    knobs: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LoGoConfig:
    """LoGo's repulsion, and the affinity that it minimizes."""

    update_kind: Annotated[str, one_of(("none", *UPDATES))]
    affinity: Annotated[str, one_of(("regressor", "random", "cosine"))]
    regressor_loss: str
    regressor_width: AtLeast1
    regressor_depth: AtLeast1
    regressor_norm: Annotated[str, one_of(CHOICES["regressor_norm"])]
    regressor_learning_rate: NotNegative
    regressor_schedule: Annotated[str, one_of(SCHEDULES)]
    weight: float
    clip_ratio: NotNegative
    reset_norm: bool
    noise: NotNegative
    noise_on: Annotated[str, one_of(CHOICES["noise_on"])]
    negatives: Annotated[str, one_of(CHOICES["negatives"])]
    both_orders: bool
    normalize: bool
    update_momentum_before_repel: bool


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The base method's optimizer and its schedule."""

    name: str
    learning_rate: NotNegative
    momentum: Annotated[float, BELOW_1]
    weight_decay: NotNegative
    schedule: Annotated[str, one_of(SCHEDULES)]
    milestones: Annotated[tuple[float, ...], MILESTONES]
    warmup_epochs: NotNegative


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of training, the average of the encoder, logging and checkpoints."""

    num_epochs: AtLeast1
    epochs_factor: AtLeast1
    num_steps: AtLeast0
    start_from: LocalPath
    start_record: str
    accumulate: AtLeast1
    ema: Annotated[float, BELOW_1]
    log_every_steps: AtLeast1
    checkpoint_every_steps: AtLeast1
    keep_newest: AtLeast1
    keep_every_steps: AtLeast0
    keep_best: str
    lock: bool


@dataclasses.dataclass(frozen=True)
class MonitorConfig:
    """Evaluation and health checks during training, and reports to Weights & Biases."""

    knn_every_steps: AtLeast0
    knn: Annotated[tuple[tuple[int, float], ...], KNN_SETTINGS]
    projector: bool
    linear: bool
    resize: AtLeast0
    crop: AtLeast0
    train_examples: AtLeast0
    test_examples: AtLeast0
    trivial_baselines: bool
    health: Annotated[str, one_of(POLICIES)]
    wandb: str

    def __post_init__(self):
        if self.crop > self.resize or (self.resize and not self.crop):
            raise ValueError(
                f"crop={self.crop} must be between 1 and config.monitor.resize="
                f"{self.resize}, or both 0 for whole images; use e.g. 256 and 224"
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """All fields of a config."""

    seed: AtLeast0
    seeds: Annotated[int, whole(1, 1024)]
    auto: bool
    pairing: Annotated[str, one_of(PAIRINGS)]
    batch_norm: str
    running_stats: Annotated[str, one_of(("all", "globals"))]
    data: DataConfig
    crops: CropsConfig
    augment: AugmentConfig
    encoder: EncoderConfig
    method: MethodConfig
    logo: LoGoConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    monitor: MonitorConfig

    def __post_init__(self):
        channels = self.data.channels
        _require_channels("augment", self.augment.policy, channels)
        if self.augment.second is not None:
            _require_channels("augment.second", self.augment.second, channels)

    def with_value_range(self) -> "Config":
        """Returns the config with the value range of the data in its augmentation."""
        if not self.data.value_range:
            return self
        low, high = self.data.value_range
        value_range = float(low), float(high)
        policy, second = self.augment.policy, self.augment.second
        policy = dataclasses.replace(policy, value_range=value_range)
        second = second and dataclasses.replace(second, value_range=value_range)
        augment = dataclasses.replace(self.augment, policy=policy, second=second)
        return dataclasses.replace(self, augment=augment)

    @property
    def norm(self) -> str:
        """The batch norm that is used: `batch_norm`, or split:K with K parts.

        Parts are encoded one after another and cannot share statistics.
        """
        parts = self.train.accumulate
        shared = self.batch_norm in ("global", "per_device")
        return f"split:{parts}" if shared and parts > 1 else self.batch_norm


def _require_channels(group: str, policy: AugmentSpec, channels: int) -> None:
    """Raises an error unless a policy is possible for images of so many channels."""
    for name in ("mean", "std"):
        value = getattr(policy, name)
        if value and len(value) != channels:
            raise ValueError(
                f"{group}.{name}={value} must have {channels} values, one for each of "
                f"config.data.channels={channels}, or be () to be measured"
            )
    if channels == 3:
        return
    needs = f"needs config.data.channels=3, not {channels}"
    if policy.grayscale_prob:
        gray = f"{group}.grayscale_prob={policy.grayscale_prob}"
        raise ValueError(f"{gray} {needs}; set it to 0")
    if policy.jitter_prob and any(policy.jitter[2:]):
        hue = f"{group}.jitter={policy.jitter} changes saturation and hue"
        raise ValueError(f"{hue}, which {needs}; set these two to 0")


def parse(config: Mapping[str, Any] | Config) -> Config:
    """Converts a config to typed groups.

    Args:
        config: a mapping of mappings or a ConfigDict with every field of
            configs/base.py for its method. A `Config` is returned as it is. Fields
            that are chosen when a run begins get the values for ImageNet-100.

    Raises:
        ValueError: if a field is unknown, missing or wrong; the message is one line.
    """
    if isinstance(config, Config):
        return config
    as_dict = getattr(config, "to_dict", lambda: config)()
    as_dict = usual(as_dict) if isinstance(as_dict, Mapping) else as_dict
    default = functools.partial(_default, as_dict)
    return parse_group(Config, as_dict, "config", default).with_value_range()


def parse_group(
    kind: type[Group], group: Any, path: str, default: Callable[[str], Any]
) -> Group:
    """Converts a group of fields to a dataclass.

    Args:
        kind: the dataclass. Its annotations are the rules of its fields. A field whose
            annotation is a dataclass is an inner group.
        group: values by name.
        path: the group's name in messages.
        default: function from a field's path to its default, or to None if there is
            none; called only for an error message.

    Raises:
        ValueError: if a field is unknown, missing or wrong, or the dataclass raises it.
    """
    values = check_fields(get_type_hints(kind, include_extras=True), group, path)
    for name, annotation in get_type_hints(kind, include_extras=True).items():
        inside = f"{path}.{name}"
        if annotation is MethodConfig:
            values[name] = _method(values[name], inside)
        elif annotation is AugmentConfig:
            values[name] = _augment(values[name], inside, default)
        elif dataclasses.is_dataclass(annotation):
            inner: Any = annotation
            values[name] = parse_group(inner, values[name], inside, default)
        else:
            require(values[name], annotation, inside, default)
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from error


def check_fields(names: Iterable[str], group: Any, path: str) -> dict[str, Any]:
    """Returns the group as a dict, after checking that it has exactly these fields.

    Raises:
        ValueError: if it is not a mapping, has another field or lacks a field.
    """
    if not isinstance(group, Mapping):
        raise ValueError(
            f"{path}={group!r} must be a group of fields; see configs/base.py"
        )
    for name in group:
        if name not in names:
            raise ValueError(
                f"unknown config field {path}.{name}; {_hint(name, names)}"
            )
    for name in names:
        if name not in group:
            raise ValueError(f"{path}.{name} is missing; see configs/base.py")
    return dict(group)


def require(
    value: Any,
    annotation: Any,
    path: str,
    default: Callable[[str], Any] = lambda path: None,
) -> None:
    """Raises a ValueError unless the annotation's rule allows the value."""
    rule = _rule(annotation)
    if rule is None:  # of a method of one's own
        raise ValueError(
            f"{path} has the annotation {annotation}; use int, float, str, bool, a "
            "tuple of floats, or Annotated with a Rule"
        )
    if not rule.allows(value):
        usual = default(path)
        hint = "" if usual is None else f"; the default is {usual!r}"
        raise ValueError(f"{path}={value!r} must be {rule.text}{hint}")


def lookup(table: Mapping[str, Any], value: str, path: str) -> Any:
    """Returns the entry of a table that a field names.

    Raises:
        ValueError: if there is no such entry.
    """
    if value not in table:
        raise ValueError(f"{path}={value!r} must be one of {', '.join(table)}")
    return table[value]


def _rule(annotation: Any) -> Rule | None:
    """Returns the rule in a field's annotation, or that of its type, if it has one."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[1]
    if annotation in PLAIN:
        return PLAIN[annotation]
    if get_origin(annotation) is not tuple:
        return None
    if get_args(annotation)[-1:] == (Ellipsis,):
        return Rule(
            "finite numbers",
            lambda x: isinstance(x, tuple) and all(map(is_number, x)),
        )
    count = len(get_args(annotation))
    return Rule(
        f"{count} finite numbers",
        lambda x: isinstance(x, tuple) and len(x) == count and all(map(is_number, x)),
    )


def _method(group: Any, path: str) -> MethodConfig:
    if not isinstance(group, Mapping) or not isinstance(group.get("name"), str):
        raise ValueError(f"{path}={group!r} must be a group of fields with a name")
    knobs = {name: value for name, value in group.items() if name != "name"}
    return MethodConfig(group["name"], knobs)


def _augment(group: Any, path: str, default: Callable[[str], Any]) -> AugmentConfig:
    """Converts the augment group, in which the fields of a policy are not a group."""
    names = [field.name for field in dataclasses.fields(AugmentSpec)]
    names.remove("value_range")  # it is a field of the data
    values = check_fields([*names, "second", "extra"], group, path)
    extra, second = values.pop("extra"), values.pop("second")
    require(extra, Annotated[Any, FUNCTION], f"{path}.extra", default)
    values["value_range"] = BYTES
    policy = parse_group(AugmentSpec, values, path, default)
    inside = f"{path}.second"
    of_crops = [name for name in names if name not in ("mean", "std")]
    changes = {
        name: float(value) if is_whole(value) else value  # None has no type to keep
        for name, value in check_fields(of_crops, second, inside).items()
        if value is not None
    }
    if not changes:
        return AugmentConfig(policy, None, extra)
    other = parse_group(AugmentSpec, values | changes, inside, default)
    return AugmentConfig(policy, other, extra)


def _hint(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f"did you mean {close[0]}?" if close else "remove it; see configs/base.py"


def _default(config: Any, path: str) -> Any:
    """Returns a field's default for the config's method; None without a default."""
    method = config.get("method") if isinstance(config, Mapping) else None
    name = method.get("name") if isinstance(method, Mapping) else None
    if not (isinstance(name, str) and name in base.METHODS):
        return None
    found: Any = base.get_config(name).to_dict()
    for part in path.split(".")[1:]:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
