"""Evaluates the encoder of a run, or of a file of weights, and writes the result."""

import json
import re
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logo_jax import protocols
from logo_jax.configs.base import MAY_CHANGE
from logo_jax.data import few_labels
from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.load import (
    OF_PATH,
    ExperimentData,
    load_images,
    locate_dataset,
    with_few_labels,
)
from logo_jax.experiment import parse, pretrained
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.parallel.mesh import make_mesh
from logo_jax.protocols.base import LABELS, EvalRequest, EvalResult
from logo_jax.storage.paths import parse_path
from logo_jax.training import atomic, workdir
from logo_jax.training.preemption import PreemptionHandler

Report = dict[str, Any]


def evaluate(
    folder: Path,
    protocol: str = "knn",
    *,
    stop: PreemptionHandler,
    weights: Path | None = None,
    config: Mapping[str, Any] | None = None,
    dataset: str = "",
    resize: int | None = None,
    crop: int | None = None,
    untrained: bool = False,
    step: int | None = None,
    encoder: str | None = None,
    images: ExperimentData | None = None,
    **options: Any,
) -> Report | None:
    """Evaluates an encoder by a protocol and writes evaluations/NAME.json.

    Args:
        folder: folder of the run; with `weights`, folder for the results. Classifiers
            are trained in its sub-folders linear/ and finetune/, and resumed there.
        protocol: one of `protocols.NAMES`.
        stop: preemption handler, which is checked between steps.
        weights: file of weights to evaluate instead of the run's newest checkpoint.
        config: config of the encoder of `weights`.
        dataset: data set to evaluate on: a folder of images, a folder with train.npz
            and test.npz, or a TFDS name; "" for that of the run.
        resize: short side of resized images, in pixels; 0: no resizing; if None, the
            run's value, or the crop's side for the protocol transfer.
        crop: side of the center crop, in pixels; if None, the run's value.
        untrained: whether to evaluate the encoder at its random initialization.
        step: step of the run's checkpoint; the newest one if None.
        encoder: a name in `pretrained.ENCODERS`; the trained one if None.
        images: images of the run's data set, if they are in memory.
        **options: options of the protocol, by the names in `protocols.OPTIONS`.

    Returns:
        The result with everything that defines the protocol, as in the file, and
        "file", the path of that file; None if the evaluation was stopped.

    Raises:
        FileNotFoundError: if there is no such run, file or data set.
        ValueError: if the protocol or an option is unknown, out of range or does not
            fit, if there is no valid checkpoint or no such encoder, or if the data are
            not as required.
        OSError: if the result cannot be written.
    """
    options = {
        name: x for name, x in options.items() if x is not None and x is not False
    }
    chosen = protocols.find(protocol, options)
    few = _few_labels(options)
    if (weights is None) != (config is None):
        raise ValueError(
            "--weights=FILE and --config=FILE.py must be given together; the folder "
            "of a run has its own config"
        )
    _require_one_encoder(weights, untrained, step, encoder)
    given = workdir.read_config(folder) if config is None else config
    parse(given)
    sizes = {"resize": resize, "crop": crop}
    if protocol == "transfer" and resize is None:  # as in the paper: crop = short side
        side = given["monitor"]["crop"] if crop is None else crop
        fields = sizes | {"resize": side}
    else:
        fields = sizes
    changed = _changed(given, dataset, fields | {"knn": options.get("knn")})
    workdir.require_writable(folder)
    begin, mesh = time.perf_counter(), make_mesh()
    if weights is None:
        subject = pretrained.from_run(
            folder, changed, mesh, step=step, encoder=encoder or pretrained.ONLINE
        )
    else:
        subject = pretrained.from_file(weights, changed, mesh)
    if not dataset:
        subject = subject.on(images)
    if untrained:
        subject = subject.untrained()
    if few:
        data = subject.given or load_images(subject.spec.config.data.location)
        subject = subject.on(with_few_labels(data, *few))
    given_sizes = {name: side for name, side in sizes.items() if side is not None}
    name = _name(protocol, dataset, given_sizes | options, subject, changed)
    own = {x: value for x, value in options.items() if x not in LABELS}
    result = chosen.run(subject, EvalRequest(own, folder / protocol / name, stop))
    if result is None:
        return None
    report = as_report(subject, result, time.perf_counter() - begin)
    is_own = weights is None and not dataset
    report |= _note(folder, subject, images) if is_own else {}
    file = folder / "evaluations" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(file, json.dumps(report, indent=2) + "\n")
    return report | {"file": str(file)}


def _few_labels(options: Mapping[str, Any]) -> tuple[few_labels.Amount, int] | None:
    """Returns the amount of labels and the seed of their draw; None for all labels."""
    if "labels" in options:
        amount = few_labels.parse_amount(options["labels"])
        return amount, int(options.get("labels_seed", 0))
    if "labels_seed" in options:
        raise ValueError(
            f"--labels_seed={options['labels_seed']} needs --labels, the part of the "
            "labels that it draws; give it, or remove --labels_seed"
        )
    return None


def _require_one_encoder(
    weights: Path | None, untrained: bool, step: int | None, encoder: str | None
) -> None:
    """Raises if more than one of a file, a checkpoint or no training is evaluated."""
    given = {"--weights=FILE": weights, "--untrained": untrained or None}
    of_run = {f"--step={step}": step, f"--encoder={encoder}": encoder}
    sources, choices = (
        [name for name, x in flags.items() if x is not None]
        for flags in (given, of_run)
    )
    if len(sources) > 1 or (sources and choices):
        one, other, *_ = [*reversed(sources), *choices]
        raise ValueError(f"{one} does not read {other}; remove one of the two")


def _note(
    folder: Path, subject: FrozenEncoder, images: ExperimentData | None
) -> dict[str, str]:
    """A note on the report if the data are not those that the run was trained on."""
    if not (folder / workdir.DATA_FILE).is_file():
        return {}
    data = images or load_images(subject.spec.config.data.location)
    changes = workdir.data_changes(folder, fingerprint(data))
    return {"note": workdir.changes_note(changes)} if changes else {}


def _changed(
    config: Mapping[str, Any], dataset: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a config with another data set, all images and other monitor fields."""
    data, monitor = dict(config["data"]), dict(config["monitor"])
    # 0: all images; the limits apply to kNN during training only
    monitor |= {"train_examples": 0, "test_examples": 0}
    if dataset:
        unset = dict.fromkeys(("path", *OF_PATH), "")
        data |= unset | {"val_size": 0} | locate_dataset(dataset)
    monitor |= {name: value for name, value in fields.items() if value is not None}
    return {**config, "data": data, "monitor": monitor}


def as_report(subject: FrozenEncoder, result: EvalResult, seconds: float) -> Report:
    """Returns the values and everything that defines the protocol, ready for JSON."""
    monitor, given = subject.spec.config.monitor, subject.given
    return {
        "protocol": result.protocol,
        "values": dict(result.values),
        "unit": "percent",
        "encoder": subject.source,
        "which_encoder": subject.which,
        "dataset": subject.spec.config.data.location.title,
        "splits": result.splits,
        **({"labels": given.few} if given and given.few else {}),
        "layers": sorted(
            {
                "projector" if name.startswith("knn_projector") else "backbone"
                for name in result.values
            }
        ),
        "settings": result.settings,
        "resolution": {"resize": monitor.resize, "crop": monitor.crop},
        "augmentation": result.augmentation,
        **({"notes": list(result.notes)} if result.notes else {}),
        "seconds": round(seconds, 3),
        **workdir.describe_machine(subject.mesh),
    }


def _name(
    protocol: str,
    dataset: str,
    settings: Mapping[str, Any],
    subject: FrozenEncoder,
    config: Mapping[str, Any],
) -> str:
    """Name of an evaluation, with all that distinguishes it from others of the run."""
    rest = dict(settings)
    default = next(iter(protocols.recipes_of(protocol)), "")
    recipe = rest.pop("recipe", default)
    parts = [protocol, recipe, _dataset_name(dataset), rest.pop("metric", "")]
    parts += [name for name, value in rest.items() if value is True]
    order = ("resize", "crop", *protocols.OPTIONS)
    values = [(name, rest[name]) for name in order if name in rest]
    parts += [f"{name}_{value}" for name, value in values if value is not True]
    parts.append(subject.source)
    if subject.step is None:  # a file of weights, whose config is not the folder's
        parts.append(f"config_{_checksum(config)}")
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)


def _checksum(config: Mapping[str, Any]) -> str:
    """Checksum of a config without fields that change no result, such as threads."""
    of_images = {"data.path", "data.list", "data.data_dir"}
    skipped = set(MAY_CHANGE) - of_images
    kept = [field for field in workdir.flatten(config) if field[0] not in skipped]
    return f"{zlib.crc32(json.dumps(sorted(kept), default=str).encode()):08x}"


def _dataset_name(dataset: str) -> str:
    """Name of a data set; a checksum of the path distinguishes folders of one name."""
    if not dataset or locate_dataset(dataset)["source"] == "tfds":
        return dataset
    path = parse_path(dataset).absolute()
    return f"{path.name}_{zlib.crc32(str(path).encode()):08x}"
