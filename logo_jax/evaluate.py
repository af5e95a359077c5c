"""Evaluates the newest checkpoint of a run, or a backbone from a file, by a protocol.

    python -m logo_jax.evaluate --workdir=runs/quickstart --protocol=knn [--dataset=DIR]
    python -m logo_jax.evaluate --workdir=DIR --weights=FILE --config=NAME

Prints a table and writes it, with everything that tells the protocol, to
WORKDIR/evaluations/NAME.json.

Exit codes: 0 done, or stopped by SIGTERM; 2 bad input, told in one line on stderr; 130
stopped by Ctrl-C. The same command resumes a linear probe.
"""

import json
import pathlib
import re
import time
import zlib
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from logo_jax import _cli, protocols
from logo_jax.data.load import locate_dataset
from logo_jax.evaluation.metrics import METRICS
from logo_jax.experiment import parse, pretrained
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.parallel.mesh import make_mesh
from logo_jax.protocols.base import EvalRequest, EvalResult
from logo_jax.training import atomic, preemption, workdir

CHANGES = ("num_epochs", "batch_size", "learning_rate", "weight_decay")


def main(arguments: Sequence[str] | None = None) -> None:
    """Restores, evaluates, prints one line a number, writes one file."""
    options = _parser().parse(arguments)
    folder = options.workdir.absolute()
    with preemption.PreemptionHandler() as stop:
        with _cli.input_errors():
            config = read_config(options, folder)
            workdir.require_writable(folder)
            _cli.keep_compiled_code()
            begin = time.perf_counter()
            subject = load(folder, config, options.weights)
            if options.untrained:
                subject = subject.untrained()
            outcome = evaluate(options, subject, folder, stop)
        if outcome is None:
            stop.leave()
    seconds = time.perf_counter() - begin
    report = as_report(subject, outcome, seconds)
    file = folder / "evaluations" / f"{_name(options, subject)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(file, json.dumps(report, indent=2) + "\n")
    print(*_lines(report), f"wrote {file}", sep="\n")


def read_config(options: Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """The run's config, or that of --weights, with what the flags say of the data.

    Raises:
        FileNotFoundError: where the folder holds no run.
        ValueError: for a value out of range, or flags that contradict each other.
    """
    protocols.find(options.protocol, given_options(options))
    has_weights = options.weights is not None
    if has_weights != bool(options.config) or (options.fields and not has_weights):
        raise ValueError(
            "--weights=FILE and --config=FILE.py must be given together: a run's "
            "folder has its own config"
        )
    if options.untrained and has_weights:
        raise ValueError("--untrained would not read --weights=FILE; leave one out")
    given = (
        _cli.load_config(options).to_dict()
        if has_weights
        else workdir.read_config(folder)
    )
    parse(given)
    data, monitor = dict(given["data"]), dict(given["monitor"])
    monitor |= {"train_examples": 0, "test_examples": 0}  # all: those limit training's
    if options.dataset:
        data |= {"path": "", "classes": "", "val_size": 0} | locate_dataset(
            options.dataset
        )
    if options.crop is not None:
        monitor["crop"] = options.crop
    if options.protocol == "transfer":  # as published: the square is the short side
        monitor["resize"] = monitor["crop"]
    if options.resize is not None:
        monitor["resize"] = options.resize
    return {**given, "data": data, "monitor": monitor}


def given_options(options: Namespace) -> dict[str, Any]:
    """The options of the protocols that were given, by name."""
    values = {name: getattr(options, name) for name in protocols.OPTIONS}
    return {name: value for name, value in values.items() if value not in (None, False)}


def load(
    folder: pathlib.Path, config: Mapping[str, Any], weights: pathlib.Path | None = None
) -> FrozenEncoder:
    """The encoder of a run's newest checkpoint, or of a file of weights.

    Raises:
        ValueError: where there is no checkpoint, or none without damage.
        FileNotFoundError: where there is no such file.
    """
    mesh = make_mesh()
    if weights is not None:
        return pretrained.from_file(weights, config, mesh)
    return pretrained.from_run(folder, config, mesh)


def evaluate(
    options: Namespace,
    subject: FrozenEncoder,
    folder: pathlib.Path,
    stop: preemption.PreemptionHandler,
) -> EvalResult | None:
    """What the flags' protocol finds, of all seeds; None where it was stopped."""
    given = given_options(options)
    folder = folder / "linear" / _name(options, subject)
    protocol = protocols.find(options.protocol, given)
    return protocol.run(subject, EvalRequest(given, folder, stop))


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


def _given(options: Namespace, names: Iterable[str]) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _name(options: Namespace, subject: FrozenEncoder) -> str:
    """What to call an evaluation: all that distinguishes it from others of the run."""
    parts = [
        options.protocol,
        (options.recipe or protocols.RECIPES[0])
        if options.protocol == "linear"
        else "",
        _dataset_name(options.dataset),
        options.metric or "",
        "trivial_baselines" if options.trivial_baselines else "",
    ]
    settings = _given(options, ("resize", "crop", *CHANGES))
    parts += [f"{name}_{value}" for name, value in settings.items()]
    parts.append(subject.source)
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)


def _dataset_name(dataset: str) -> str:
    """Of --dataset: folders of one name are told apart by where they are."""
    if not dataset or locate_dataset(dataset)["source"] == "tfds":
        return dataset
    path = _cli.path(dataset).absolute()
    return f"{path.name}_{zlib.crc32(str(path).encode()):08x}"


def _parser() -> _cli.Parser:
    parser = _cli.Parser("evaluate", __doc__, has_fields=True)
    parser.add_workdir("folder of the run; of --weights: where to write")
    parser.add_argument(
        "--protocol", choices=protocols.NAMES, default="knn", help="default knn"
    )
    parser.add_argument(
        "--dataset",
        metavar="DATASET",
        default="",
        help="another one than the run's: a folder of images, one of train.npz and "
        "test.npz, or a TFDS name",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=_cli.path,
        help="a safetensors file of a backbone with torchvision's names, in place of "
        "the run's checkpoint",
    )
    parser.add_config("encoder, image size and channels' mean of --weights")
    parser.add_argument(
        "--resize",
        metavar="PIXELS",
        type=_cli.at_least(0),
        help="short side; default the run's, for transfer its crop's; 0: as it is",
    )
    parser.add_argument(
        "--crop",
        metavar="PIXELS",
        type=_cli.at_least(0),
        help="side of the center square; default the run's",
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="evaluate the encoder as it was before the first step",
    )
    parser.add_argument(
        "--trivial_baselines",
        action="store_true",
        help="of knn: add what pixels, mean colors and the untrained encoder reach at "
        "the first (k, T)",
    )
    parser.add_argument(
        "--metric",
        choices=METRICS,
        help="of transfer and svm; default the data set's, top1 and map for others",
    )
    _add_linear(parser)
    return parser


def _add_linear(parser: _cli.Parser) -> None:
    group = parser.add_argument_group("flags of --protocol=linear")
    group.add_argument(
        "--recipe",
        choices=protocols.RECIPES,
        help="SGD as MoCo (default) or LARS as SimSiam, both on random crops; or "
        "features: a grid of SGD on cached features",
    )
    group.add_argument(
        "--num_epochs",
        metavar="N",
        type=_cli.at_least(1),
        help="milestones move with it; default the recipe's",
    )
    group.add_argument(
        "--batch_size",
        metavar="N",
        type=_cli.at_least(1),
        help="over all devices; default the recipe's",
    )
    group.add_argument(
        "--learning_rate",
        metavar="RATE",
        type=float,
        help="for 256 images a step; default the recipe's",
    )
    group.add_argument(
        "--weight_decay", metavar="DECAY", type=float, help="default the recipe's"
    )


if __name__ == "__main__":
    _cli.run(main)
