"""Chooses the open fields of a config from its images, the memory and the network."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from logo_jax.data.headers import sample_sizes
from logo_jax.data.load import ExperimentData
from logo_jax.experiment import networks, pretrained
from logo_jax.experiment.config import Config, parse
from logo_jax.experiment.data import usable_memory
from logo_jax.experiment.defaults import (
    USUAL,
    Facts,
    choose,
    open_fields,
    settled,
    value_of,
)
from logo_jax.experiment.memory import GIB, forward_bytes
from logo_jax.parallel import processes
from logo_jax.storage.paths import as_path
from logo_jax.training import workdir

# fields that are used only if there are queries
OF_KNN = (
    "monitor.knn_every_steps",
    "monitor.knn",
    "monitor.train_examples",
    "monitor.test_examples",
)
# the lines that state the chosen fields, the most important first
_LINES = (
    ("data.batch_size", "train.num_epochs", "method.queue_size"),
    ("crops.global_crops", "crops.local_crops", "data.canvas"),
    ("encoder.stem", "augment.blur_prob", "monitor.resize", "monitor.crop"),
    ("train.log_every_steps", "train.checkpoint_every_steps"),
    OF_KNN,
)
_MESSAGE_BYTES = 4096  # the chosen fields as JSON, for the other processes


def chosen(
    config: Mapping[str, Any],
    folder: Path | None,
    mesh: Mesh,
    load: Callable[[], ExperimentData],
    memory: float = 0.0,
) -> tuple[dict[str, Any], str]:
    """Returns a config with values for its open fields, and a text that states them.

    A run that is resumed keeps the values that were chosen when it began; values that
    the config gives are not replaced. `auto` of the result is False, and the values are
    the same on all processes.

    Args:
        config: the config as nested mappings.
        folder: the folder of the run; None if it is not known.
        mesh: the devices.
        load: function that returns the images; called only if they are needed.
        memory: bytes of a device that a run can use; 0: those of this machine.

    Returns:
        The config, and the text; "" if no field was open, or the run is resumed.

    Raises:
        ValueError: if there are too few images for a step.
    """
    names = open_fields(config)
    if not names:
        return {**config, "auto": False}, ""
    fields, text = _saved(folder, config) if processes.is_first() else {}, ""
    is_known = processes.broadcast_from_first(np.int32(len(fields) == len(names)))
    if not is_known:
        fields, text = _choose(config, mesh, load(), memory or usable_memory(mesh)[0])
    return {**_with_fields(config, _agreed(fields)), "auto": False}, text


def _saved(folder: Path | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """The open fields with what was chosen for the run of a folder, if there is one.

    The number and the area of crops are not open, so they are those of the config.
    """
    if folder is None or not (folder / workdir.CONFIG_FILE).exists():
        return {}
    saved, fields = workdir.read_config(folder), {}
    for field in open_fields(config):
        value = value_of(saved, field)
        if field.endswith("_crops"):
            value = value[1] if isinstance(value, tuple) and len(value) == 3 else None
        if value is not None:
            fields[field] = settled(value_of(config, field), value)
    return fields


def _choose(
    config: Mapping[str, Any], mesh: Mesh, images: ExperimentData, memory: float
) -> tuple[dict[str, Any], str]:
    typed = parse(config)
    sizes = sample_sizes(images.train)
    facts = _facts(typed, mesh, images, sizes)

    def most_images(config: Mapping[str, Any]) -> int:
        each = _image_bytes(parse(config)) * typed.seeds
        return int(memory / each) * typed.train.accumulate * mesh.devices.size

    _, fields = choose(config, facts, most_images)
    height, width = np.median(sizes, axis=0).astype(int) if len(sizes) else ("?", "?")
    count = f"{facts.num_images:,} images of about {height}x{width} px"
    used = dict(fields)
    if typed.train.num_steps:
        used.pop("train.num_epochs", None)
    if not facts.queries:
        used = {field: x for field, x in used.items() if field not in OF_KNN}
    stated = [[f"{x}={used[x]}" for x in line if x in used] for line in _LINES]
    return fields, "\n  ".join(
        [
            f"chosen for {count} and {memory / GIB:.3g} GiB of memory per device "
            "(--config.FIELD=VALUE sets another value):",
            *(", ".join(line) for line in stated if line),
        ]
    )


def _facts(
    config: Config, mesh: Mesh, images: ExperimentData, sizes: np.ndarray
) -> Facts:
    unit = mesh.devices.size * networks.norm_groups(config.norm)
    fewest = max(2, unit if config.norm == "global" else 2 * unit)
    count = len(images.train)
    if count < fewest:
        raise ValueError(
            f"{images.train.origin} has {count} image{'s' * (count > 1)}, but a "
            f"training step needs {fewest} or more; add images"
        )
    bank, queries = images.bank or (), images.queries or ()
    return Facts(
        num_images=count,
        short=int(np.median(sizes.min(1))) if len(sizes) else USUAL.short,
        longest=int(sizes.max()) if len(sizes) else USUAL.longest,
        bank=len(bank) if queries else 0,
        queries=len(queries),
        unit=unit,
        fewest=fewest,
        stem=_stem(config),
    )


def _stem(config: Config) -> str:
    """The stem of the starting weights; "" if there are none."""
    source = config.encoder.weights or config.train.start_from
    if not source:
        return ""
    path = as_path(source)
    if not pretrained.is_run(path):
        return "imagenet"  # that of the ResNets of other libraries
    return workdir.read_config(path)["encoder"]["stem"]


def _image_bytes(config: Config) -> int:
    """The bytes of the arrays of a forward pass of all crops of an image."""
    norm = networks.make_norm(config.norm)
    encoder = networks.make_encoder(config.encoder, norm)
    crops = [spec for spec in config.crops.specs.values() if spec.count]
    channels = config.data.channels
    sides = [(spec.size, spec.size, channels) for spec in crops]
    networks.check_backbone(encoder.backbone, config.encoder, 2, sides)
    return sum(
        spec.count * forward_bytes(encoder, spec.size, channels) for spec in crops
    )


def _with_fields(
    config: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    changed = dict(config)
    for field, value in fields.items():
        group, name = field.split(".")
        changed[group] = {**changed[group], name: value}
    return changed


def _agreed(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of the first process on all processes."""
    if processes.is_alone():
        return fields
    text = json.dumps(fields).encode()
    message = np.zeros(_MESSAGE_BYTES, np.uint8)
    message[: len(text)] = np.frombuffer(text, np.uint8)
    message = np.asarray(processes.broadcast_from_first(message))
    return workdir.as_tuples(json.loads(message.tobytes().rstrip(b"\0")))
