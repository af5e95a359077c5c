"""What each field of a config may hold: configs/base.py's defaults, as rules."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from logo_jax.evaluation.knn import COLDEST

INT_MAX = int(np.iinfo(np.int32).max)
FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field may hold.

    Attributes:
        text: completes "must be".
        example: a value to use.
        allows: whether a value, of any type, is one.
    """

    text: str
    example: Any
    allows: Callable[[Any], bool]


Schema: TypeAlias = Mapping[str, "Rule | Schema"]


def check(config: Mapping[str, Any], path: str = "config") -> None:
    """Looks at every field before any is used.

    Args:
        config: every field of configs/base.py for its method.
        path: its name in messages.

    Raises:
        ValueError: for a value that its field cannot hold.
    """
    _check(config, path, FIELDS)


def _check(config: Any, path: str, rules: Schema) -> None:
    if not hasattr(config, "items"):
        raise ValueError(
            f"{path}={config!r} must be a group of fields; see configs/base.py"
        )
    for name, rule in rules.items():
        if isinstance(rule, Mapping):
            _check(config.get(name), f"{path}.{name}", rule)
        elif name in config and not rule.allows(config[name]):
            raise ValueError(
                f"{path}.{name}={config[name]!r} must be {rule.text}; "
                f"use e.g. {rule.example!r}"
            )


def whole(low: int, example: int, most: int = INT_MAX) -> Rule:
    """A whole number from low to most."""
    limit = f", at most {most:,}" if most < INT_MAX else ", below 2**31"
    return Rule(
        f"a whole number, {low} or more{limit}",
        example,
        lambda value: is_whole(value) and low <= value <= most,
    )


def number(example: float) -> Rule:
    """Any number that float32 can hold."""
    return Rule("a finite number", example, is_number)


def at_least_0(example: float) -> Rule:
    """A number that is not negative."""
    return Rule(
        "a finite number, 0 or more", example, lambda x: is_number(x) and x >= 0
    )


def positive(example: float) -> Rule:
    """A number above 0."""
    return Rule("a finite number above 0", example, lambda x: is_number(x) and x > 0)


def fraction(example: float) -> Rule:
    """A number from 0 to 1."""
    return Rule("a number from 0 to 1", example, lambda x: is_number(x) and 0 <= x <= 1)


def text(example: str) -> Rule:
    """A string; who reads it knows which."""
    return Rule("a text", example, lambda x: isinstance(x, str) and "\0" not in x)


def numbers(count: int, example: tuple[float, ...]) -> Rule:
    """So many numbers."""
    return Rule(
        f"{count} finite numbers",
        example,
        lambda x: isinstance(x, tuple) and len(x) == count and all(map(is_number, x)),
    )


def crops(low: int, example: tuple[int, int, tuple[float, float]]) -> Rule:
    """A group of crops, low or more of each image."""
    return Rule(
        f"(crops per image, {low} or more; side in pixels; "
        "(min, max) area with 0 < min <= max <= 1)",
        example,
        lambda value: _are_crops(value, low),
    )


def is_whole(value: Any) -> bool:
    """Whether it is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is an int or a float that float32 can hold; not NaN."""
    known = is_whole(value) or isinstance(value, float)
    return known and -FLOAT_MAX <= value <= FLOAT_MAX


def _are_crops(value: Any, low: int) -> bool:
    match value:
        case (int(count), int(side), (smallest, largest)):
            counted = is_whole(count) and is_whole(side) and count >= low and side >= 1
            areas = is_number(smallest) and is_number(largest)
            return counted and areas and 0 < smallest <= largest <= 1
    return False


def _are_milestones(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and all(is_number(part) and 0 < part < 1 for part in value)
        and all(a < b for a, b in zip(value, value[1:], strict=False))
    )


def _are_knn_settings(value: Any) -> bool:
    def is_setting(setting):
        match setting:
            case (k, temperature):
                return (
                    is_whole(k)
                    and k >= 1
                    and is_number(temperature)
                    and temperature >= COLDEST
                )
        return False

    return isinstance(value, tuple) and bool(value) and all(map(is_setting, value))


FLAG = Rule("True or False", True, lambda value: isinstance(value, bool))
POSITIVE = positive(0.1)

FIELDS: Schema = {
    "seed": whole(0, 0),
    "seeds": whole(1, 1, most=1024),
    "pairing": text("global_targets"),
    "batch_norm": text("global"),
    "running_stats": text("all"),
    "data": {
        "source": text("folder"),
        "name": text("cifar10"),
        "path": text("images"),
        "data_dir": text(""),
        "classes": text(""),
        "val_size": whole(0, 10_000),
        "canvas": whole(1, 384),
        "loader": text("auto"),
        "max_corrupt": fraction(0.001),
        "threads": whole(0, 0, most=1024),
        "workers": whole(0, 0, most=1024),
        "batch_size": whole(2, 512),
    },
    "crops": {
        "global_crops": crops(2, (2, 32, (0.4, 1.0))),
        "local_crops": crops(0, (2, 32, (0.08, 0.6))),
    },
    "augment": {
        "flip_prob": fraction(0.5),
        "jitter": numbers(4, (0.4, 0.4, 0.4, 0.1)),
        "jitter_prob": fraction(0.8),
        "grayscale_prob": fraction(0.2),
        "blur_prob": fraction(0.5),
        "blur_sigma": numbers(2, (0.1, 2.0)),
        "mean": numbers(3, (0.5, 0.5, 0.5)),
        "std": numbers(3, (0.25, 0.25, 0.25)),
    },
    "encoder": {
        "backbone": text("resnet18"),
        "stem": text("cifar"),
        "width": whole(1, 64),
        "zero_init_residual": FLAG,
        "head": text("simsiam"),
        "head_layers": whole(2, 2),
        "head_hidden": whole(1, 2048),
        "embedding_dim": whole(1, 2048),
        "dtype": text("float32"),
        "remat": FLAG,
    },
    "logo": {
        "update_kind": text("released"),
        "affinity": text("regressor"),
        "regressor_loss": text("jensen_shannon"),
        "regressor_width": whole(1, 256),
        "regressor_depth": whole(1, 2),
        "regressor_norm": text("separate"),
        "regressor_learning_rate": at_least_0(0.03),
        "regressor_schedule": text("constant"),
        "weight": number(1e-4),
        "clip_ratio": at_least_0(0.015),
        "reset_norm": FLAG,
        "noise": at_least_0(0.3),
        "noise_on": text("positives"),
        "negatives": text("flip"),
        "both_orders": FLAG,
        "normalize": FLAG,
        "update_momentum_before_repel": FLAG,
    },
    "optimizer": {
        "name": text("sgd"),
        "learning_rate": at_least_0(0.03),
        "momentum": Rule(
            "a number, 0 or more and below 1",
            0.9,
            lambda value: is_number(value) and 0 <= value < 1,
        ),
        "weight_decay": at_least_0(5e-4),
        "schedule": text("cosine"),
        "milestones": Rule(
            "fractions of training, rising, between 0 and 1",
            (0.6, 0.8),
            _are_milestones,
        ),
        "warmup_epochs": at_least_0(10.0),
    },
    "train": {
        "num_epochs": whole(1, 200),
        "num_steps": whole(0, 10_000),
        "log_every_steps": whole(1, 20),
        "checkpoint_every_steps": whole(1, 1000),
    },
    "monitor": {
        "knn_every_steps": whole(0, 1000),
        "knn": Rule(
            f"pairs (neighbours >= 1, temperature >= {COLDEST}), at least one",
            ((20, 0.07),),
            _are_knn_settings,
        ),
        "projector": FLAG,
        "linear": FLAG,
        "resize": whole(0, 256),
        "crop": whole(0, 224),
        "train_examples": whole(0, 0),
        "test_examples": whole(0, 0),
        "trivial_baselines": FLAG,
        "health": text("log"),
        "wandb": text(""),
    },
    "method": {
        "name": text("simsiam"),
        "predictor_hidden": whole(1, 512),
        "predictor_fixed_rate": FLAG,
        "queue_size": whole(0, 4096),
        "momentum": fraction(0.99),
        "temperature": POSITIVE,
        "shuffle": FLAG,
        "encode_unused_views": FLAG,
        "num_prototypes": whole(1, 512),
        "epsilon": positive(0.05),
        "iterations": whole(1, 3),
        "queue_start_epoch": at_least_0(15.0),
        "frozen_epochs": at_least_0(1.0),
    },
}
