"""Evaluates the newest checkpoint of a run, or a backbone from a file, by a protocol.

python -m logo_jax.evaluate --workdir=runs/quickstart --protocol=knn [--dataset=DIR]

Prints a table and writes it, with everything that tells the protocol, to
WORKDIR/evaluations/NAME.json.
"""

import json
import pathlib
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from logo_jax import _cli, protocols
from logo_jax.data.load import locate_dataset
from logo_jax.evaluation.metrics import METRICS
from logo_jax.experiment import parse, pretrained
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.main import CONFIG, WORKDIR
from logo_jax.parallel.mesh import make_mesh
from logo_jax.protocols.base import EvalRequest, EvalResult
from logo_jax.training import preemption, workdir
from logo_jax.training.logging.metric_writer import write_atomically

PROTOCOL = flags.DEFINE_enum("protocol", "knn", protocols.NAMES, "How to evaluate.")
DATASET = flags.DEFINE_string(
    "dataset",
    "",
    "Another one than the run's: a folder of images, one of train.npz and test.npz, or "
    "a TFDS name.",
)
WEIGHTS = flags.DEFINE_string(
    "weights",
    "",
    "A safetensors file of a backbone with torchvision's names, in place of the run's "
    "checkpoint; --config has its encoder, its image size and its channels' mean.",
)
RESIZE = flags.DEFINE_integer(
    "resize",
    None,
    "Short side, pixels; default the run's, for transfer its crop's; 0: as it is.",
    lower_bound=0,
)
CROP = flags.DEFINE_integer(
    "crop", None, "Side of the centre square; default the run's.", lower_bound=0
)
METRIC = flags.DEFINE_enum(
    "metric",
    "",
    ("", *METRICS),
    "Of transfer and svm; default the data set's, top1 and map for others.",
)
TRIVIAL_BASELINES = flags.DEFINE_bool(
    "trivial_baselines",
    False,
    "Of knn: adds what pixels, mean colours and the untrained encoder reach at the "
    "first (k, T).",
)
UNTRAINED = flags.DEFINE_bool(
    "untrained", False, "Evaluates the encoder as it was before the first step."
)
RECIPE = flags.DEFINE_enum(
    "recipe",
    protocols.RECIPES[0],
    protocols.RECIPES,
    "Of linear: SGD as MoCo, LARS as SimSiam, both on random crops; or a grid of SGD "
    "on cached features.",
)
CHANGES = {
    "num_epochs": flags.DEFINE_integer(
        "num_epochs", None, "Of linear; milestones move with it.", lower_bound=1
    ),
    "batch_size": flags.DEFINE_integer(
        "batch_size", None, "Of linear, over all devices.", lower_bound=1
    ),
    "learning_rate": flags.DEFINE_float(
        "learning_rate", None, "Of linear, for 256 images a step."
    ),
    "weight_decay": flags.DEFINE_float("weight_decay", None, "Of linear."),
}


def main(argv: Sequence[str]) -> None:
    """Restores, evaluates, prints one line a number, writes one file."""
    del argv
    _cli.keep_compiled_code()
    folder = _cli.path(str(WORKDIR.value)).absolute()
    with preemption.PreemptionHandler() as stop:
        with _cli.input_errors():
            config = read_config(folder)
            workdir.require_writable(folder)
            begin = time.perf_counter()
            subject = load(folder, config, WEIGHTS.value)
            if UNTRAINED.value:
                subject = subject.untrained()
            outcome = evaluate(subject, folder, stop)
        if outcome is None:
            stop.leave()
    seconds = time.perf_counter() - begin
    report = as_report(subject, outcome, seconds)
    file = folder / "evaluations" / f"{_name(subject)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(report, indent=2) + "\n")
    print(*_lines(report), f"wrote {file}", sep="\n")


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The run's config, or that of --weights, with what the flags say of the data.

    Raises:
        FileNotFoundError: where the folder holds no run.
        ValueError: for a value out of range, or flags that contradict each other.
    """
    protocols.find(PROTOCOL.value, options())
    if bool(WEIGHTS.value) != bool(CONFIG.value):
        raise ValueError(
            "--weights=FILE and --config=FILE.py must be given together: a run's "
            "folder has its own config"
        )
    if UNTRAINED.value and WEIGHTS.value:
        raise ValueError("--untrained would not read --weights=FILE; leave one out")
    given = CONFIG.value.to_dict() if WEIGHTS.value else workdir.read_config(folder)
    parse(given)
    data, monitor = dict(given["data"]), dict(given["monitor"])
    monitor |= {"train_examples": 0, "test_examples": 0}  # all: those limit training's
    if DATASET.value:
        data |= {"path": "", "classes": "", "val_size": 0} | locate_dataset(
            DATASET.value
        )
    if CROP.value is not None:
        monitor["crop"] = CROP.value
    if PROTOCOL.value == "transfer":  # as published: the square is the whole short side
        monitor["resize"] = monitor["crop"]
    if RESIZE.value is not None:
        monitor["resize"] = RESIZE.value
    return {**given, "data": data, "monitor": monitor}


def options() -> dict[str, Any]:
    """Those of the protocols' options that were given, by name."""
    return {
        name: flags.FLAGS[name].value
        for name in protocols.OPTIONS
        if flags.FLAGS[name].present
    }


def load(
    folder: pathlib.Path, config: Mapping[str, Any], weights: str = ""
) -> FrozenEncoder:
    """The encoder of a run's newest checkpoint, or of a file of weights.

    Raises:
        ValueError: where there is no checkpoint, or none without damage.
        FileNotFoundError: where there is no such file.
    """
    mesh = make_mesh()
    if weights:
        return pretrained.from_file(_cli.path(weights), config, mesh)
    return pretrained.from_run(folder, config, mesh)


def evaluate(
    subject: FrozenEncoder, folder: pathlib.Path, stop: preemption.PreemptionHandler
) -> EvalResult | None:
    """What the flags' protocol finds, of all seeds; None where it was stopped."""
    protocol = protocols.find(PROTOCOL.value, options())
    request = EvalRequest(options(), folder / "linear" / _name(subject), stop)
    return protocol.run(subject, request)


def as_report(
    subject: FrozenEncoder, outcome: EvalResult, seconds: float
) -> dict[str, Any]:
    """Everything that tells what the numbers are, ready for JSON."""
    monitor = subject.spec.config.monitor
    return {
        "protocol": outcome.protocol,
        "values": dict(outcome.values),
        "unit": "percent",
        "encoder": subject.source,
        "dataset": subject.spec.config.data.location.title,
        "splits": outcome.splits,
        "layers": sorted(
            {
                "projector" if name.startswith("knn_projector") else "backbone"
                for name in outcome.values
            }
        ),
        "settings": outcome.settings,
        "resolution": {"resize": monitor.resize, "crop": monitor.crop},
        "augmentation": outcome.augmentation,
        "seconds": round(seconds, 1),
        **workdir.describe_machine(subject.mesh),
    }


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    splits = ", ".join(f"{count:,} {name}" for name, count in report["splits"].items())
    yield f"{report['protocol']}"
    yield f"{report['encoder']} on {report['dataset']} ({splits})"
    for name, value in report["values"].items():
        yield f"{name:32s} {value:6.2f} %"
    yield f"{report['seconds']} s on {report['devices']}"


def _name(subject: FrozenEncoder) -> str:
    """What to call an evaluation: all that distinguishes it from others of the run."""
    recipe = RECIPE.value if PROTOCOL.value == "linear" else ""
    given = [METRIC.value, "trivial_baselines" * TRIVIAL_BASELINES.value]
    given += [
        f"{flag.name}_{flag.value}"
        for flag in (RESIZE, CROP, *CHANGES.values())
        if flag.value is not None
    ]
    parts = (PROTOCOL.value, recipe, _dataset_name(), *given, subject.source)
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)


def _dataset_name() -> str:
    """Of --dataset: folders of one name are told apart by where they are."""
    if not DATASET.value or locate_dataset(DATASET.value)["source"] == "tfds":
        return DATASET.value or ""
    path = _cli.path(DATASET.value).absolute()
    return f"{path.name}_{zlib.crc32(str(path).encode()):08x}"


if __name__ == "__main__":
    _cli.run(main, required=("workdir",))
