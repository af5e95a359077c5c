"""Compares training curves with an implementation in PyTorch and torchvision.

    python -m benchmarks.torch_curves --data=DIR --out=OUT [--results=docs/results.md]

MoCo, SimSiam and LoGo's four crops are trained by this library and by
`benchmarks.torch_methods`, which shares only the values of the config: those of cells
of configs/study/cifar10_cpu.py. Both are evaluated by this library's kNN, on the same
images, at four points of training. DIR has train.npz and test.npz. Finished runs are
not repeated, interrupted runs of this library are resumed, and several processes of the
command divide the runs among them. Prints tables of accuracies and differences with
95 % intervals, and writes them, the curves and a figure to OUT. Needs PyTorch and
torchvision (`-e ".[bench]"`); PyTorch uses one thread.
"""

import argparse
import contextlib
import json
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from logo_jax import _cli, sweep
from logo_jax.data.load import ExperimentData, load_images
from logo_jax.evaluation.features import extract
from logo_jax.evaluation.knn import knn_accuracy
from logo_jax.experiment import make_spec
from logo_jax.experiment.data import decode_in_memory
from logo_jax.experiment.experiment import make_eval_crops
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.parallel.mesh import make_mesh
from logo_jax.sweeps import markdown, spec, table
from logo_jax.sweeps.runs import (
    Run,
    curves_of,
    make_runs,
    missing_of,
    reached_by,
    records_of,
)
from logo_jax.sweeps.statistics import Residual, summary
from logo_jax.sweeps.table import Records
from logo_jax.training import atomic, workdir
from logo_jax.training.logging.metric_writer import METRICS_FILE
from logo_jax.visualization import curves
from logo_jax.visualization.rendered import RenderedFigure

STUDY = "configs/study/cifar10_cpu.py"
CASES = {
    "moco": "moco_baseline",
    "simsiam": "simsiam_baseline",
    "logo": "moco_logo_joint",
}
POINTS = 4  # evaluations of a run
NAME = "torch_curves"
SIDES = OURS, THEIRS = "logo_jax", "PyTorch"
AT_ONCE = 500  # images that PyTorch encodes

# values of fields that the implementation in PyTorch has
SUPPORTED = {
    "augment.extra": [""],
    "augment.quarter_turns_prob": [0.0],
    "augment.solarize_prob": [0.0],
    "augment.vertical_flip_prob": [0.0],
    "data.channels": [3],
    "encoder.backbone": ["resnet10", "resnet18"],
    "encoder.dtype": ["float32"],
    "encoder.head": ["moco", "simsiam"],
    "encoder.stem": ["cifar"],
    "encoder.weights": [""],
    "logo.update_kind": ["none", "joint"],
    "method.encode_unused_views": [False],
    "method.name": ["moco", "simsiam"],
    "method.shuffle": [True],
    "monitor.projector": [False],
    "optimizer.name": ["sgd"],
    "optimizer.schedule": ["cosine"],
    "optimizer.warmup_epochs": [0.0],
    "pairing": ["one_way", "symmetric", "global_targets"],
    "running_stats": ["all"],
    "seeds": [1],
    "train.accumulate": [1],
    "train.start_from": [""],
}
# and, with LoGo's repulsion
SUPPORTED_LOGO = {
    "logo.affinity": ["regressor"],
    "logo.both_orders": [False],
    "logo.negatives": ["flip"],
    "logo.noise_on": ["positives"],
    "logo.normalize": [True],
    "logo.regressor_loss": ["jensen_shannon"],
    "logo.regressor_norm": ["separate"],
    "logo.regressor_schedule": ["constant"],
    "method.name": ["moco"],
}


class Comparison(NamedTuple):
    """The finished runs of both implementations.

    Attributes:
        sweep: the cells that are compared, their seeds and metrics.
        records: records of the finished runs, by implementation.
        curves: rows of the evaluations of each finished run, by implementation, and
            then by cell and seed.
    """

    sweep: spec.Sweep
    records: Mapping[str, Records]
    curves: Mapping[str, Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]]

    def seeds(self, cell: str) -> list[int]:
        """Returns the seeds of a cell with finished runs of both implementations."""
        finished = [self.records[side] for side in SIDES]
        return [x for x in self.sweep.seeds if all((cell, x) in y for y in finished)]

    def steps(self, cell: str) -> list[int]:
        """Returns the steps after which a cell was evaluated."""
        return [row["step"] for row in self.curves[OURS][cell, self.seeds(cell)[0]]]

    def values(self, side: str, cell: str, metric: str, step: int) -> list[float]:
        """Returns the values of a metric after a step, one for each of `seeds`."""
        return [
            row[metric]
            for seed in self.seeds(cell)
            for row in self.curves[side][cell, seed]
            if row["step"] == step
        ]

    def difference(self, cell: str, metric: str, step: int) -> dict[str, Any]:
        """Returns the difference of both implementations after a step."""
        both = (self.values(side, cell, metric, step) for side in SIDES)
        return difference(*both)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    flags = _parser().parse_args(arguments)
    with _cli.input_errors():
        compared = chosen(flags.cases.split(","), flags.seeds)
        fields = fields_of(compared, flags.data, flags.steps)
        runs = {
            side: make_runs(compared, flags.out.absolute() / side, fields)
            for side in SIDES
        }
        for run in runs[THEIRS]:
            require_supported(run)
        missing = {side: missing_of(runs[side]) for side in SIDES}
        if missing[THEIRS]:
            require_torch()
        for side in SIDES:
            (flags.out / side).mkdir(parents=True, exist_ok=True)
        succeeded = sweep.train_all(missing[OURS], compared.metrics, lock=True)
        for run in missing[THEIRS]:
            # another process of this command may train it
            with (
                contextlib.suppress(workdir.WorkdirInUseError),
                workdir.lock_workdir(run.claim),
            ):
                if not run.record.exists():
                    sweep.say(f"{run.name} in {THEIRS}")
                    train_in_torch(run, compared.metrics)
        comparison = read(compared, runs)
        drawn = figure(comparison)
        print(write(flags.out, comparison, drawn))
        if flags.results is not None:
            write_results(flags.results, comparison, drawn, shown_command(flags))
    return 0 if succeeded else 1


def chosen(cases: Sequence[str], seeds: int) -> spec.Sweep:
    """Returns the cells of the study for some cases, with the study's metrics.

    Raises:
        ValueError: if a case is unknown.
    """
    if unknown := sorted(set(cases) - set(CASES)):
        raise ValueError(
            f"--cases={','.join(cases)} has unknown {', '.join(unknown)}; use some of "
            f"{','.join(CASES)}"
        )
    study = spec.read(STUDY)
    cells = {cell.name: replace(cell, baseline="") for cell in study.cells}
    used = tuple(cells[CASES[case]] for case in cases)
    return spec.Sweep(used, study.metrics, tuple(range(seeds)))


def fields_of(compared: spec.Sweep, data: Path, steps: int) -> list[str]:
    """Returns the flags of all runs: their data, their length and their evaluations.

    Args:
        compared: the cells.
        data: folder of train.npz and test.npz.
        steps: number of steps; 0: that of the cells.
    """
    lengths = [cell.overrides["train.num_steps"] for cell in compared.cells]
    fields = {"data.source": "npz", "data.path": data.absolute()}
    fields["monitor.knn_every_steps"] = max(1, (steps or min(lengths)) // POINTS)
    if steps:
        fields["train.num_steps"] = steps
    return [f"--config.{name}={value}" for name, value in fields.items()]


def require_supported(run: Run) -> None:
    """Raises an error unless the implementation in PyTorch has all that a run uses.

    Raises:
        ValueError: if a field of the config has another value.
    """
    values = dict(workdir.flatten(run.config))
    has_logo = values["logo.update_kind"] != "none"
    needed = SUPPORTED | (SUPPORTED_LOGO if has_logo else {})
    needed |= {name: [None] for name in values if name.startswith("augment.second.")}
    for name, allowed in needed.items():
        if name in values and values[name] not in allowed:
            raise ValueError(
                f"{run.name}: benchmarks/torch_methods.py has no "
                f"config.{name}={values[name]!r}, only {allowed}; add it there"
            )


def require_torch() -> None:
    """Raises an error unless PyTorch and torchvision are installed.

    Raises:
        ValueError: if one of them is not.
    """
    absent = [x for x in ("torch", "torchvision") if find_spec(x) is None]
    if absent:
        raise ValueError(f"{' and '.join(absent)} must be installed: -e '.[bench]'")


def train_in_torch(run: Run, metrics: Sequence[str]) -> None:
    """Trains a run in PyTorch; writes its evaluations and its record.

    Raises:
        ValueError: if its networks are not of the size of this library's.
    """
    from benchmarks import torch_methods  # it imports PyTorch, which may be absent

    begin, config = time.monotonic(), run.config
    method = torch_methods.make_method(config)
    ours = make_spec(config, num_devices=1)
    require_same_sizes(method.networks, ours.shapes.params)
    data = decode_in_memory(ours.config.data, load_images(ours.config.data.location))
    evaluate = knn_of(ours, data)
    every = config["monitor"]["knn_every_steps"]
    rows = [
        {"step": step, "loss": loss, **evaluate(encode)}
        for step, loss, encode in torch_methods.train(
            method, config, data.train.images, every
        )
    ]
    run.folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    atomic.write_text(run.folder / METRICS_FILE, lines)
    machine = workdir.describe_machine(make_mesh())
    machine["versions"] |= {x: version(x) for x in ("torch", "torchvision")}
    record = {
        "arguments": run.arguments,
        "metrics": reached_by(run, metrics),
        "curves": curves_of(run, metrics),
        "seconds": time.monotonic() - begin,
        "commit": sweep.commit(),
        "machine": machine,
    }
    atomic.write_text(run.record, json.dumps(record, indent=2) + "\n")


def require_same_sizes(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises an error unless both have the same networks with as many parameters.

    Args:
        theirs: modules by name.
        ours: parameters, or their shapes, by name.

    Raises:
        ValueError: if they differ.
    """
    sizes = (
        {
            name: sum(x.numel() for x in net.parameters())
            for name, net in theirs.items()
        },
        {name: sum(x.size for x in jax.tree.leaves(net)) for name, net in ours.items()},
    )
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"numbers of parameters differ: {THEIRS} {sizes[0]}, {OURS} {sizes[1]}; "
            "correct benchmarks/torch_methods.py"
        )


def knn_of(ours: ExperimentSpec, data: ExperimentData) -> Callable[..., dict]:
    """Returns a function from an encoder of images to the accuracies of kNN.

    Bank, queries, settings and names are those of a run's own evaluation.
    """
    monitor = ours.config.monitor
    limits = (data.bank, monitor.train_examples), (data.queries, monitor.test_examples)
    crops = [make_eval_crops(ours, images, limit) for images, limit in limits]

    def evaluate(encode: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        bank, queries = (
            extract(lambda x: {"": encode(x)}, part, batch_size=AT_ONCE)[""]
            for part in crops
        )
        found = knn_accuracy(
            bank, queries, monitor.knn, num_classes=data.bank.num_classes
        )
        return {f"knn/{name}": value for name, value in found.items()}

    return evaluate


def read(compared: spec.Sweep, runs: Mapping[str, Sequence[Run]]) -> Comparison:
    """Reads what the finished runs have written.

    Args:
        compared: the cells, seeds and metrics.
        runs: the runs by implementation.
    """
    records = {side: records_of(runs[side], compared.metrics) for side in SIDES}
    curves = {
        side: {
            which: evaluations(record, compared.metrics)
            for which, record in records[side].items()
        }
        for side in SIDES
    }
    return Comparison(compared, records, curves)


def evaluations(
    record: Mapping[str, Any], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the step and the metrics of each evaluation in the record of a run."""
    columns = [record["curves"][name] for name in metrics]
    return [
        {"step": points[0][0]}
        | {name: value for name, (_, value) in zip(metrics, points, strict=True)}
        for points in zip(*columns, strict=True)
    ]


def difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Returns the difference of two means, and half of its 95 % interval.

    The interval is Student's for independent samples of the same variance. Runs with
    the same seed are not paired, because the random numbers are different.

    Args:
        ours: values of runs, at least one.
        theirs: as many values of other runs.
    """
    mean = statistics.mean(ours) - statistics.mean(theirs)
    margin = None
    if len(ours) > 1:
        pooled = statistics.mean(map(statistics.variance, (ours, theirs))) ** 0.5
        margin = Residual(pooled, 2 * len(ours) - 2).margin(len(ours))
    return {"mean": mean, "margin": margin}


def final_table(comparison: Comparison) -> str:
    """Returns a Markdown table of the last values of each seed and their difference."""
    lines = [["cell", "metric", *SIDES, f"{OURS} - {THEIRS} (95 %)"]]
    for cell in cells_of(comparison):
        last = comparison.steps(cell)[-1]
        for metric in comparison.sweep.metrics:
            values = [comparison.values(side, cell, metric, last) for side in SIDES]
            found = comparison.difference(cell, metric, last)
            columns = [f"{spread(each)} ({seeds_of(each)})" for each in values]
            lines.append([cell, metric, *columns, table.interval(found)])
    return table.as_table(lines)


def curve_table(comparison: Comparison) -> str:
    """Returns a Markdown table of the first metric after each step."""
    metric, lines = comparison.sweep.metrics[0], []
    for cell in cells_of(comparison):
        steps = comparison.steps(cell)
        for side in SIDES:
            values = [comparison.values(side, cell, metric, step) for step in steps]
            lines.append([cell, side, *map(spread, values)])
        found = [comparison.difference(cell, metric, step) for step in steps]
        lines.append([cell, "difference (95 %)", *map(table.interval, found)])
    head = ["cell", metric, *(f"step {step}" for step in steps)]
    return table.as_table([head, *lines])


def cells_of(comparison: Comparison) -> list[str]:
    """Returns the names of the cells that have a seed that both have finished.

    Raises:
        ValueError: if there is none.
    """
    names = [x.name for x in comparison.sweep.cells if comparison.seeds(x.name)]
    if not names:
        raise ValueError(
            "no run is finished by both implementations; see the logs in OUT"
        )
    return names


def spread(values: Sequence[float]) -> str:
    """Formats the mean and the standard deviation."""
    return table.spread(summary(values))


def seeds_of(values: Sequence[float]) -> str:
    """Formats the value of each seed."""
    return ", ".join(f"{value:.2f}" for value in values)


def figure(comparison: Comparison) -> RenderedFigure:
    """Returns a figure with a panel for each cell and metric, and a line for each side.

    Bands are a standard deviation over seeds to both sides of the mean.
    """
    rows = {side: [] for side in SIDES}
    for metric in comparison.sweep.metrics:
        for cell in cells_of(comparison):
            panel = f"{cell} {metric.removeprefix('knn/').removesuffix('/top1')}"
            for side in SIDES:
                for step in comparison.steps(cell):
                    values = comparison.values(side, cell, metric, step)
                    band = summary(values)
                    row = {
                        "step": step,
                        panel: band["mean"],
                        f"{panel}/std": band["std"],
                    }
                    rows[side].append(row)
    group = curves.Group(NAME, "kNN top-1 during training", "", lambda _: True)
    (drawn,) = curves.plot_curves(rows, [group])
    return drawn


def write(out: Path, comparison: Comparison, drawn: RenderedFigure) -> str:
    """Writes curves.json, table.md and the figure; returns the tables as Markdown."""
    report = {
        cell: {
            "curves": {
                side: {seed: comparison.curves[side][cell, seed] for seed in seeds}
                for side in SIDES
            },
            "differences": {
                metric: {
                    step: comparison.difference(cell, metric, step)
                    for step in comparison.steps(cell)
                }
                for metric in comparison.sweep.metrics
            },
        }
        for cell in cells_of(comparison)
        if (seeds := comparison.seeds(cell))
    }
    text = f"{final_table(comparison)}\n\n{curve_table(comparison)}"
    atomic.write_text(out / "curves.json", json.dumps(report, indent=2) + "\n")
    atomic.write_text(out / "table.md", text + "\n")
    with atomic.replace(out / f"{NAME}.png") as partial:
        partial.write_bytes(drawn.png)
    return text


def write_results(
    page: Path, comparison: Comparison, drawn: RenderedFigure, command: str
) -> None:
    """Writes the tables into a Markdown page, and the figure to figures/ next to it."""
    records = {side: list(comparison.records[side].values()) for side in SIDES}
    versions = records[THEIRS][0]["machine"]["versions"]
    costs = [f"{side}: {markdown.costs(records[side])}" for side in SIDES]
    costs.append(f"torch {versions['torch']}, torchvision {versions['torchvision']}.")
    parts = [
        final_table(comparison),
        " ".join(costs),
        *markdown.written(page, drawn),
        curve_table(comparison),
        f"    {command}",
    ]
    section = "\n\n".join(parts)
    placed = markdown.placed(page.read_text(), NAME, section, f"benchmarks.{NAME}")
    atomic.write_text(page, placed)


def shown_command(flags: argparse.Namespace) -> str:
    """Returns the command for a results page."""
    defaults = _parser().parse_args(["--data=DIR", "--out=OUT"])
    names = [
        x for x in ("cases", "seeds", "steps") if vars(flags)[x] != vars(defaults)[x]
    ]
    given = [f"--{name}={vars(flags)[name]}" for name in names]
    module = f"benchmarks.{NAME}"
    return shlex.join(["python", "-m", module, "--data=DIR", "--out=OUT", *given])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of train.npz and test.npz"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seeds", type=_cli.at_least(1), default=3)
    parser.add_argument(
        "--steps", type=_cli.at_least(0), default=0, help="0: as in the study"
    )
    parser.add_argument("--results", type=Path, help="page to write the results into")
    return parser


if __name__ == "__main__":
    # raises an exception, as Ctrl-C does, so that a run of this library is stopped, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _cli.run(main)
