"""Fields of a config that are measured on its images when a run begins.

They are the type and the range of the values, and the mean and the standard deviation
of each channel (`configs.base.MEASURED`). The config.json of a run has what was
measured, so that everything later uses the same values.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from logo_jax.augment.color import BYTES
from logo_jax.configs.base import MEASURED
from logo_jax.data.decode import DecodeError, decode
from logo_jax.data.load import ExperimentData, load_images
from logo_jax.data.measure import Measured, measure
from logo_jax.data.sources.base import ImageSource
from logo_jax.experiment.config import Config

DIGITS = 6  # of means and standard deviations


def with_measured(
    config: Config, images: ExperimentData
) -> tuple[Config, ExperimentData, list[str]]:
    """Measures what the config does not state.

    Args:
        config: the config.
        images: its images.

    Returns:
        The complete config, its images, and sentences about the values for the start of
        a run. There are none for images of 8 bits whose statistics are stated.

    Raises:
        ValueError: if no image can be used, or if all values are equal.
    """
    data, policy = config.data, config.augment.policy
    keeps = bool(data.location.decoding.dtype)
    if data.reader:
        _require_first(images.train)
    stated = data.value_range if keeps else BYTES
    is_complete = policy.mean and policy.std and stated
    if is_complete and not (keeps and data.dtype == "auto"):
        return config, _decoded_as(config, images), [_note(config)] if keeps else []
    found = measure(images.train, stated, threads=data.threads)
    if not stated:
        stated = _range(found, data.bit_depth, images.train.origin)
        found = _scaled(found, stated)
    if keeps:
        data = dataclasses.replace(
            data,
            dtype=found.dtype if data.dtype == "auto" else data.dtype,
            value_range=stated,
        )
    statistics = {
        "mean": policy.mean or _rounded(found.mean),
        "std": policy.std or _rounded(np.where(found.std > 0, found.std, 1.0)),
    }
    second = config.augment.second
    augment = dataclasses.replace(
        config.augment,
        policy=dataclasses.replace(policy, **statistics),
        second=second and dataclasses.replace(second, **statistics),
    )
    changed = dataclasses.replace(config, data=data, augment=augment)
    changed = changed.with_value_range()
    return changed, _decoded_as(changed, images), [_note(changed, found)]


def fields_of(config: Config) -> dict[str, Any]:
    """Returns the values of the fields that may have been measured, by dotted name."""
    policy = config.augment.policy
    return {
        "data.dtype": config.data.dtype,
        "data.value_range": config.data.value_range,
        "augment.mean": policy.mean,
        "augment.std": policy.std,
    }


def completed(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with values for the fields that are to be measured.

    Args:
        config: the config as nested mappings.
        values: values by dotted name; fields that the config states are not changed.
    """
    changed = dict(config)
    for field, unknown in MEASURED.items():
        group, name = field.split(".")
        if field in values and changed.get(group, {}).get(name) == unknown:
            changed[group] = {**changed[group], name: values[field]}
    return changed


def _decoded_as(config: Config, images: ExperimentData) -> ExperimentData:
    """Returns the images, to be decoded to the type that is known by now."""
    (first,) = images.train.records([0])
    known = config.data.location.decoding.dtype
    if isinstance(first.image, np.ndarray) or first.decoding.dtype == known:
        return images
    return load_images(config.data.location)


def _require_first(images: ImageSource) -> None:
    """Raises an error if the first image cannot be read."""
    (first,) = images.records([0])
    try:
        decode(first.image, decoding=first.decoding)
    except DecodeError as error:
        raise ValueError(f"{images.name(0)}: {error}") from error


def _range(found: Measured, bit_depth: int, origin: str) -> tuple[float, float]:
    """Returns the values that become 0 and 1 if the config does not state them."""
    if found.dtype == "uint8":
        return BYTES
    if found.dtype == "uint16" and bit_depth < 16:
        return 0.0, 2.0**bit_depth - 1
    if found.lowest == found.highest:
        raise ValueError(
            f"all values of {origin} are {found.lowest:g}, {found.extent}; state "
            "config.data.value_range, or use other images"
        )
    return found.lowest, found.highest


def _scaled(found: Measured, value_range: tuple[float, float]) -> Measured:
    """Returns the statistics of values that are scaled from a range to [0, 1]."""
    low, high = value_range
    mean, std = (found.mean - low) / (high - low), found.std / (high - low)
    return found._replace(mean=mean, std=std)


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)


def _note(config: Config, found: Measured | None = None) -> str:
    """A sentence about the channels, the values and their statistics."""
    data, policy = config.data, config.augment.policy
    statistics = f"mean {_text(policy.mean)}, standard deviation {_text(policy.std)}"
    if not data.location.decoding.dtype:
        return f"{statistics} of the channels" + (f", {found.extent}" if found else "")
    low, high = data.value_range
    parts = [
        f"{data.channels} channels of {data.dtype}: {low:g} becomes 0 and {high:g} "
        f"becomes 1",
        statistics,
    ]
    if found:
        values = f"values from {found.lowest:g} to {found.highest:g}"
        parts.append(f"{values}, {found.extent}")
    if data.channels != 3:
        parts.append("no changes of saturation and hue, and no grayscale")
    return "; ".join(parts)


def _text(values: Sequence[float]) -> str:
    """Returns numbers with few digits, and only the first of many."""
    shown = [f"{value:.3g}" for value in values[:4]]
    return f"({', '.join(shown)}{', ...' if len(values) > 4 else ''})"
