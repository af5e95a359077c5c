"""Describes a run on devices that are not here, from its compiled step."""

import datetime
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from logo_jax.data.load import ExperimentData, load_images
from logo_jax.experiment import ExperimentSpec, make_spec, parse
from logo_jax.experiment.ahead import (
    LEAST_OF_O0,
    MOST_OF_O0,
    AheadStep,
    KnownImages,
    compile_ahead,
    floor_seconds,
    known_images,
)
from logo_jax.experiment.choosing import chosen
from logo_jax.experiment.data import SHARE
from logo_jax.experiment.measured import completed, fields_of, with_measured
from logo_jax.experiment.memory import AIM, GIB
from logo_jax.parallel.targets import Target
from logo_jax.runs.data_report import Finding

# bytes of bfloat16 in those of float32: steps of ResNet-18, -34 and -50, compiled for a
# v5e and an H100
HALF = "0.53 to 0.56"


def describe_target(
    config: Mapping[str, Any], target: Target, level: str, *, remedies: bool = False
) -> Iterator[Finding]:
    """Yields what the compiler of a target says about the step of a config.

    Args:
        config: the config as nested mappings.
        target: the devices.
        level: level of optimization.
        remedies: whether the step is also compiled with settings that may help.

    Raises:
        ValueError: if a field is wrong, or the images are not known.
        FileNotFoundError: if the images are not known.
    """

    @functools.cache
    def load() -> ExperimentData:
        return load_images(parse(config).data.location)

    yield Finding("ok", "target", _devices(target))
    config, text = chosen(config, None, target.mesh, load, target.memory)
    if text:
        yield Finding("ok", "chosen", text.replace("\n", "\n" + " " * 12))
    config = _measured(config, load)
    images = known_images(parse(config).data, load)
    spec = _spec(config, target, images)
    spec.check(target.mesh.devices.size)
    yield Finding("ok", "data", _images(images))
    yield Finding("ok", "batch", _batch(spec, target))
    step = compile_ahead(spec, target, images, level)
    if not step.refused:
        yield Finding("ok", "step", _step(step, level, spec))
    kept = stored_bytes(spec, target, images)
    yield _memory(step, kept, target, level)
    if not step.refused:
        yield Finding("ok", "exchange", _exchanges(step, target))
        yield Finding("ok", "time", _time(step, target, spec))
    if remedies:
        for name, changed in _remedies(config):
            yield from _tried(name, changed, target, images, level)
    else:
        yield Finding("ok", "help", _rules(spec, target))


def stored_bytes(spec: ExperimentSpec, target: Target, images: KnownImages) -> int:
    """Returns the bytes of the images that a run would keep on each device."""
    data = spec.config.data
    needed = images.count * data.num_bytes(images.canvas)
    fits = data.loader == "auto" and needed <= SHARE * target.memory
    return needed if fits or data.loader == "on_device" else 0


def _measured(
    config: Mapping[str, Any], load: Callable[[], ExperimentData]
) -> Mapping[str, Any]:
    """Returns a config with what is measured on its images, if these are here."""
    try:
        images = load()
    except FileNotFoundError:
        return config
    typed, _, _ = with_measured(parse(config), images)
    return completed(config, fields_of(typed))


def _spec(
    config: Mapping[str, Any], target: Target, images: KnownImages
) -> ExperimentSpec:
    batch_size = parse(config).data.batch_size
    return make_spec(
        config,
        num_devices=target.mesh.devices.size,
        steps_per_epoch=max(1, images.count // batch_size),
        num_classes=images.num_classes,
    )


def _devices(target: Target) -> str:
    chip, devices = target.chip, target.mesh.devices
    share = f", of which JAX reserves {chip.usable:g}" if chip.usable < 1 else ""
    return (
        f"{devices.size} x {devices.flat[0].device_kind}, {gib(chip.memory)}{share}; "
        "nothing runs: all figures are from its compiler and from stated peaks"
    )


def _images(images: KnownImages) -> str:
    height, width = images.canvas
    return f"{images.count:,} images of {images.origin}, stored at {height}x{width} px"


def _batch(spec: ExperimentSpec, target: Target) -> str:
    size, count = spec.config.data.batch_size, target.mesh.devices.size
    seeds = len(spec.schedule.seeds)
    each = f", for each of {seeds} seeds" if seeds > 1 else ""
    return f"{size} = {count} devices x {size // count}{each}"


def _step(step: AheadStep, level: str, spec: ExperimentSpec) -> str:
    return (
        f"compiled at level {level} in {step.compilation:.0f} processor seconds: "
        f"{step.flops / 1e12:.3g} TFLOP and {step.moved / 1e9:.3g} GB moved on each "
        f"device{_counted(spec)}, {step.instructions:,} instructions, "
        f"{gib(step.donated)} of the state overwritten in place"
    )


def _counted(spec: ExperimentSpec) -> str:
    """What a compiler counts of a batch in parts, which are a loop."""
    parts = spec.config.train.accumulate
    return f" (of the {parts} parts, the compiler may count one)" if parts > 1 else ""


def _memory(step: AheadStep, kept: int, target: Target, level: str) -> Finding:
    limit = target.memory
    if step.refused:
        wanted = f"needs {gib(step.num_bytes)}" if step.num_bytes else "does not fit"
        text = f"the step {wanted} of the {gib(limit)} of each device: {step.refused}"
        return Finding("FAIL", "memory", text)
    least = most = step.num_bytes + kept
    if level == "O0":
        least, most = LEAST_OF_O0 * step.num_bytes + kept, MOST_OF_O0 * step.num_bytes
        most += kept
    text = f"{gib(step.num_bytes)} per device, {gib(step.code)} of it code"
    text += f", and {gib(kept)} of images" if kept else ""
    text += f", of {gib(limit)}"
    if level == "O0":
        text += f"; a run, which is optimized, needs {gib(least)} to {gib(most)}"
    if least > limit:
        return Finding("FAIL", "memory", f"{text}: it does not fit")
    fits = most <= AIM * limit
    text += ": it fits" if fits else ": it may not fit"
    if not fits and level == "O0":
        text += "; --level=default compiles as a run does"
    return Finding("ok" if fits else "warn", "memory", text)


def _exchanges(step: AheadStep, target: Target) -> str:
    if target.mesh.devices.size == 1:
        return "none: one device"
    parts = [
        f"{count} {kind} of {size / 1e6:.3g} MB"
        for kind, (count, size) in step.exchanges.items()
    ]
    once = "; those of a loop count once" if step.loops else ""
    return f"{', '.join(parts) or 'none'}, in all, a step{once}"


def _time(step: AheadStep, target: Target, spec: ExperimentSpec) -> str:
    dtype, chip = spec.config.encoder.dtype, target.chip
    by_memory, by_products = floor_seconds(step, target, dtype)
    seconds = max(by_memory, by_products)
    text = (
        f"a floor, from stated peaks, of {_ms(seconds)} a step: {_ms(by_memory)} at "
        f"{chip.bandwidth / 1e12:.3g} TB/s, {_ms(by_products)} at "
        f"{getattr(chip, dtype) / 1e12:.4g} TFLOP/s"
    )
    steps = spec.schedule.num_steps
    whole = datetime.timedelta(seconds=round(steps * seconds))
    return f"{text}; {whole} or more for {steps:,} steps, without kNN"


def _rules(spec: ExperimentSpec, target: Target) -> str:
    config, rules = spec.config, []
    if config.encoder.dtype == "float32":
        rules.append(
            f"config.encoder.dtype=bfloat16 moves {HALF} of the bytes of float32"
        )
    if not config.encoder.remat:
        rules.append("config.encoder.remat=True needs less memory and more FLOPs")
    rules.append(
        f"config.train.accumulate={2 * config.train.accumulate} or half the batch "
        "size need nearly half the activations"
    )
    if target.mesh.devices.size == 1:
        rules.append("more devices divide the batch")
    lines = ("\n" + " " * 14).join(rules)
    return f"rules, not compiled (--remedies compiles them):\n{' ' * 14}{lines}"


def _remedies(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields settings that may help, and configs with them."""
    typed = parse(config)
    half = typed.data.batch_size // 2
    changes: list[tuple[str, str, Any]] = [
        ("train", "accumulate", 2 * typed.train.accumulate),
        ("data", "batch_size", half),
    ]
    if not typed.encoder.remat:
        changes.insert(0, ("encoder", "remat", True))
    if typed.encoder.dtype == "float32":
        changes.insert(0, ("encoder", "dtype", "bfloat16"))
    for group, field, value in changes:
        changed = {**config, group: {**config[group], field: value}}
        yield f"config.{group}.{field}={value}", changed


def _tried(
    name: str,
    config: Mapping[str, Any],
    target: Target,
    images: KnownImages,
    level: str,
) -> Iterator[Finding]:
    """Yields what the step needs with another setting, compiled at the same level."""
    try:
        spec = _spec(config, target, images)
        spec.check(target.mesh.devices.size)
    except ValueError:  # this network, or this batch size, does not have the setting
        return
    step = compile_ahead(spec, target, images, level)
    if step.refused:
        yield Finding("ok", "help", f"{name}: does not fit either")
        return
    seconds = max(floor_seconds(step, target, spec.config.encoder.dtype))
    yield Finding(
        "ok",
        "help",
        f"{name}: {gib(step.num_bytes)}, {step.moved / 1e9:.3g} GB moved, "
        f"{step.flops / 1e12:.3g} TFLOP{_counted(spec)}, a floor of {_ms(seconds)} a "
        "step",
    )


def gib(num_bytes: float) -> str:
    """Returns a number of bytes in GiB.

    >>> gib(2**29)
    '0.5 GiB'
    """
    return f"{num_bytes / GIB:.3g} GiB"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
