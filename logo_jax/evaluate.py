"""Evaluates the newest checkpoint of a run, or a backbone from a file.

    python -m logo_jax.evaluate --workdir=runs/quickstart --protocol=knn [--dataset=DIR]
    python -m logo_jax.evaluate --workdir=DIR --weights=FILE --config=NAME

Prints a table of the results and writes them, with everything that defines the
protocol (splits, settings, resolution, versions), to WORKDIR/evaluations/NAME.json.

Exit codes: 0 if the evaluation is done or was stopped by SIGTERM; 2 for bad input,
which is reported in one line on stderr; 130 if stopped by Ctrl-C. The same command
resumes an interrupted linear probe.
"""

import json
import pathlib
import re
import time
import zlib
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
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
    """Runs the command line: evaluates, prints one line per value, writes one file."""
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
    """Returns the config of the encoder to evaluate, changed by the flags.

    It is the run's config, or the config that `--config` names if `--weights` is given.
    --dataset, --resize and --crop change its data set and evaluation size; kNN limits
    on the number of images are removed.

    Args:
        options: flags of the command line.
        folder: folder of the run.

    Raises:
        FileNotFoundError: if the folder contains no run.
        ValueError: if a value is out of range, or flags contradict each other.
    """
    protocols.find(options.protocol, _cli.given(options, protocols.OPTIONS))
    has_weights = options.weights is not None
    if has_weights != bool(options.config) or (options.fields and not has_weights):
        raise ValueError(
            "--weights=FILE and --config=FILE.py must be given together; the folder "
            "of a run has its own config"
        )
    if options.untrained and has_weights:
        raise ValueError(
            "--untrained does not read --weights=FILE; remove one of the two"
        )
    given = (
        _cli.load_config(options).to_dict()
        if has_weights
        else workdir.read_config(folder)
    )
    parse(given)
    data, monitor = dict(given["data"]), dict(given["monitor"])
    # 0: all images; the limits apply to kNN during training only
    monitor |= {"train_examples": 0, "test_examples": 0}
    if options.dataset:
        data |= {"path": "", "classes": "", "val_size": 0} | locate_dataset(
            options.dataset
        )
    if options.crop is not None:
        monitor["crop"] = options.crop
    if options.protocol == "transfer":  # as in the paper: crop = short side
        monitor["resize"] = monitor["crop"]
    if options.resize is not None:
        monitor["resize"] = options.resize
    return {**given, "data": data, "monitor": monitor}


def load(
    folder: pathlib.Path, config: Mapping[str, Any], weights: pathlib.Path | None = None
) -> FrozenEncoder:
    """Returns the encoder of a run's newest checkpoint, or of a file of weights.

    Raises:
        ValueError: if there is no checkpoint, or all checkpoints are damaged.
        FileNotFoundError: if the file of weights does not exist.
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
    """Evaluates an encoder by the protocol that the flags name, with all its seeds.

    Args:
        options: flags of the command line.
        subject: encoder to evaluate.
        folder: folder of the run; a linear probe is trained in its sub-folder linear/.
        stop: preemption handler, which is checked between steps.

    Returns:
        The result; None if the evaluation was stopped before its end.
    """
    given = _cli.given(options, protocols.OPTIONS)
    folder = folder / "linear" / _name(options, subject)
    protocol = protocols.find(options.protocol, given)
    return protocol.run(subject, EvalRequest(given, folder, stop))


def as_report(
    subject: FrozenEncoder, outcome: EvalResult, seconds: float
) -> dict[str, Any]:
    """Returns the values and everything that defines the protocol, ready for JSON."""
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


def _name(options: Namespace, subject: FrozenEncoder) -> str:
    """Name of an evaluation, with all that distinguishes it from others of the run."""
    parts = [
        options.protocol,
        (options.recipe or protocols.RECIPES[0])
        if options.protocol == "linear"
        else "",
        _dataset_name(options.dataset),
        options.metric or "",
        "trivial_baselines" if options.trivial_baselines else "",
    ]
    settings = _cli.given(options, ("resize", "crop", *CHANGES))
    parts += [f"{name}_{value}" for name, value in settings.items()]
    parts.append(subject.source)
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)


def _dataset_name(dataset: str) -> str:
    """Name of a data set; a checksum of the path distinguishes folders of one name."""
    if not dataset or locate_dataset(dataset)["source"] == "tfds":
        return dataset
    path = _cli.path(dataset).absolute()
    return f"{path.name}_{zlib.crc32(str(path).encode()):08x}"


def _parser() -> _cli.Parser:
    parser = _cli.Parser("evaluate", __doc__, has_fields=True)
    parser.add_workdir("folder of the run; with --weights: folder for the results")
    parser.add_argument(
        "--protocol",
        choices=protocols.NAMES,
        default="knn",
        help="evaluation protocol; default knn",
    )
    parser.add_argument(
        "--dataset",
        metavar="DATASET",
        default="",
        help="data set to evaluate on: a folder of images, a folder with train.npz and "
        "test.npz, or a TFDS name; default: the data set of the run",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=_cli.path,
        help="safetensors file of a backbone with torchvision's tensor names, to "
        "evaluate instead of the run's checkpoint; needs --config",
    )
    parser.add_config(
        "config with the encoder, image size and normalization of --weights"
    )
    parser.add_argument(
        "--resize",
        metavar="PIXELS",
        type=_cli.at_least(0),
        help="short side of resized images; 0: no resizing; default: the run's value, "
        "or the crop's side for --protocol=transfer",
    )
    parser.add_argument(
        "--crop",
        metavar="PIXELS",
        type=_cli.at_least(0),
        help="side of the center crop; default: the run's value",
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="evaluate the encoder at initialization, before the first step",
    )
    parser.add_argument(
        "--trivial_baselines",
        action="store_true",
        help="for --protocol=knn: also report the accuracy of raw pixels, mean colors "
        "and the untrained encoder, at the first (k, T) pair of the config",
    )
    parser.add_argument(
        "--metric",
        choices=METRICS,
        help="metric of --protocol=transfer (default: the metric of the data set, or "
        "top1 if the paper does not use the data set) or --protocol=svm (default map)",
    )
    _add_linear(parser)
    return parser


def _add_linear(parser: _cli.Parser) -> None:
    group = parser.add_argument_group("flags of --protocol=linear")
    group.add_argument(
        "--recipe",
        choices=protocols.RECIPES,
        help="moco (default): SGD as in MoCo; simsiam: LARS as in SimSiam, both on "
        "random crops; features: SGD on cached features over a grid of settings",
    )
    group.add_argument(
        "--num_epochs",
        metavar="N",
        type=_cli.at_least(1),
        help="number of epochs; the milestones scale with it; default: the recipe's",
    )
    group.add_argument(
        "--batch_size",
        metavar="N",
        type=_cli.at_least(1),
        help="batch size over all devices; default: the recipe's",
    )
    group.add_argument(
        "--learning_rate",
        metavar="RATE",
        type=float,
        help="learning rate for a batch size of 256; default: the recipe's",
    )
    group.add_argument(
        "--weight_decay",
        metavar="DECAY",
        type=float,
        help="weight decay; default: the recipe's",
    )


if __name__ == "__main__":
    _cli.run(main)
