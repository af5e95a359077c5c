"""Evaluates a checkpoint of a run, or a backbone from a file.

    python -m logo_jax.evaluate --workdir=runs/quickstart --protocol=knn [--dataset=DIR]
    python -m logo_jax.evaluate --workdir=DIR --weights=FILE --config=NAME
    python -m logo_jax.evaluate --workdir=DIR --weights=cifar10-resnet18w16-moco-logo

Prints a table of the results and writes them, with everything that defines the
protocol (splits, settings, resolution, versions), to WORKDIR/evaluations/NAME.json.

Exit codes: 0 if the evaluation is done or was stopped by SIGTERM; 2 for bad input,
which is reported in one line on stderr; 130 if stopped by Ctrl-C. The same command
resumes an interrupted linear probe or fine-tuning.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from logo_jax import _cli, protocols, zoo
from logo_jax.data import few_labels
from logo_jax.evaluation.metrics import METRICS
from logo_jax.experiment.pretrained import ENCODERS
from logo_jax.runs import evaluation
from logo_jax.training import preemption

ENCODER = ("weights", "dataset", "resize", "crop", "untrained", "step", "encoder")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line: evaluates, prints one line per value, writes one file."""
    options = _parser().parse(arguments)
    if known := zoo.find(options.weights or ""):
        options.weights, options.config = known.weights, options.config or known.config
    _cli.keep_compiled_code()
    with preemption.PreemptionHandler() as stop:
        with _cli.input_errors():
            if options.fields and not options.config:
                raise ValueError(
                    "--config.FIELD=VALUE needs --config; the folder of a run has its "
                    "own config"
                )
            config = _cli.load_config(options).to_dict() if options.config else None
            report = evaluation.evaluate(
                options.workdir.absolute(),
                options.protocol,
                stop=stop,
                config=config,
                **_cli.given(options, (*ENCODER, *protocols.OPTIONS)),
            )
        if report is None:
            stop.leave()
    print(*_lines(report), f"wrote {report['file']}", sep="\n")


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    splits = ", ".join(f"{count:,} {name}" for name, count in report["splits"].items())
    yield f"{report['protocol']}"
    yield f"{report['encoder']} on {report['dataset']} ({splits})"
    if "labels" in report:
        yield few_labels.summary(report["labels"])
    for name, value in report["values"].items():
        yield f"{name:32s} {value:6.2f} %"
    yield f"{report['seconds']:.1f} s on {report['devices']}"
    yield from report.get("notes", ())
    if "note" in report:
        yield f"note: {report['note']}"


def _knn(text: str) -> tuple[tuple[int, float], ...]:
    """Converts a flag's pairs of a number of neighbors and a temperature.

    >>> _knn("20,0.07;200,0.1")
    ((20, 0.07), (200, 0.1))
    """
    try:
        pairs = [pair.split(",") for pair in text.split(";")]
        return tuple((int(k), float(t)) for k, t in pairs)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be pairs K,T separated by ;, such as '20,0.07;200,0.1'"
        ) from error


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
        "evaluate instead of the run's checkpoint; needs --config. Or a name of the "
        "zoo, which has a config",
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
    parser.add_checkpoint(ENCODERS)
    parser.add_argument(
        "--knn",
        metavar="K,T[;K,T]",
        type=_knn,
        help="for --protocol=knn: numbers of neighbors and temperatures, such as "
        "'20,0.07;200,0.1'; default: those of the run",
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
    _add_labels(parser)
    _add_training(parser)
    return parser


def _labels(text: str) -> str:
    try:
        return str(few_labels.parse_amount(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_labels(parser: _cli.Parser) -> None:
    group = parser.add_argument_group("few labels, for all protocols except svm")
    group.add_argument(
        "--labels",
        metavar="FRACTION|N",
        type=_labels,
        help="labels to train on, or to classify by: a fraction of those of each "
        "class, such as 0.01, or a whole number per class, such as 10; default: all",
    )
    group.add_argument(
        "--labels_seed",
        metavar="SEED",
        type=_cli.at_least(0),
        help="seed of the draw of the labels; default 0",
    )


def _add_training(parser: _cli.Parser) -> None:
    group = parser.add_argument_group("flags of --protocol=linear and finetune")
    group.add_argument(
        "--recipe",
        choices=protocols.RECIPES,
        help="linear: moco (default), SGD as in MoCo; simsiam, LARS as in SimSiam, "
        "both on random crops; features, SGD on cached features over a grid of "
        "settings. finetune: byol (default), 5 learning rates and 2 lengths; simclr, 7 "
        "learning rates and 8 weight decays, 20,000 steps each; moco, one setting",
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
        help="linear: learning rate for a batch size of 256; finetune: of a step, in "
        "place of the grid's; default: the recipe's",
    )
    group.add_argument(
        "--weight_decay",
        metavar="DECAY",
        type=float,
        help="weight decay, in place of a grid's; default: the recipe's",
    )


if __name__ == "__main__":
    _cli.run(main)
