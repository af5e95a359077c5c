"""Checks whether a training run will work, and estimates its time and memory.

    python -m logo_jax.doctor --config=configs/quickstart.py [--workdir=runs/quickstart]
    python -m logo_jax.doctor --config=configs/quickstart.py --print
    python -m logo_jax.doctor --data=DIR [--out=FILE.html] [--sample=N] [--config=NAME]
    python -m logo_jax.doctor --config=NAME --target=v5e:2x2 [--level=...] [--remedies]

Prints one line per check: ok, warn or FAIL. Nothing is written, except compiled code in
the compilation cache, which the training run then reuses, and the list of damaged
images, if --damaged=FILE asks for it. With --print, every field of
the config is printed in the form of a config file, one per line, and no check is made.

With --data, all images of a folder or of an .npz file are read once, and a page about
them is written to FILE.html: splits and classes as training would read them, sizes and
formats, equal and damaged images, and crops as the network would see them (those of
--config, by default configs/folder.py). Nothing is written to the folder.

With --target, the step is compiled for devices that are not here: v4, v5e, v5p, v6e,
h100, h200 or a100; with a number (8xh100), or a grid of TPUs (v5e:2x2). The lines say
whether it fits the memory, what it computes, moves and exchanges, and the least time
that it takes; no step runs. TPUs need pip install -e ".[tpu]", GPUs ".[aot-cuda]".

Exit codes: 0 if the run will work, or with --print; 2 if it will not, or for bad input.
"""

import argparse
import datetime
import functools
import itertools
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from logo_jax import _cli, configs
from logo_jax.data import eval_crops
from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.load import ExperimentData, load_images
from logo_jax.data.sources.base import ImageSource
from logo_jax.experiment import Experiment, ExperimentSpec, make_experiment, make_spec
from logo_jax.experiment.ahead import LEVELS
from logo_jax.experiment.choosing import chosen
from logo_jax.experiment.config import TrainConfig, parse
from logo_jax.experiment.data import usable_memory
from logo_jax.experiment.defaults import open_fields
from logo_jax.experiment.memory import (
    remedy,
    step_bytes,
    stored_bytes,
    traced_step,
)
from logo_jax.experiment.starting import recorded
from logo_jax.methods import MoCo
from logo_jax.parallel import program_cache
from logo_jax.parallel.mesh import make_mesh
from logo_jax.parallel.targets import FORMS, find_target
from logo_jax.runs import data_report
from logo_jax.runs.data_report import Finding
from logo_jax.runs.target_report import describe_target, gib
from logo_jax.storage.paths import in_bucket
from logo_jax.training import workdir
from logo_jax.training.checkpoints.manager import CheckpointManager
from logo_jax.training.schedule import TrainingSchedule

Made = TypeVar("Made")
PROBLEMS = (ValueError, TypeError, OSError, jax.errors.JaxRuntimeError)
DEFAULT_STEPS = 5  # steps that are timed
DEFAULT_LEVEL = "O0"  # level of optimization of --target
TIGHT = 0.9  # fraction of the free space or memory; a check warns above it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = _parser()
    options = parser.parse(arguments)
    _require_together(parser, options)
    if options.damaged is not None:
        with _cli.input_errors():
            _cli.require_new(options.damaged, overwrite=True)
    if options.data is not None:
        return survey_data(options)
    if options.config is None:
        parser.error("--config=NAME or --data=DIR is required")
    if options.target is not None:
        return ask_compiler(options)
    with _cli.input_errors():
        config = _cli.load_config(options).to_dict()
        published = configs.load(options.config).to_dict()
        mesh = None if options.print else make_mesh()
    if mesh is None:
        for name, value in workdir.flatten(config):
            print(f"config.{name} = {value!r}")
        return 0
    _cli.keep_compiled_code()
    failed = False
    for finding in examine(
        config,
        published=published,
        folder=None if options.workdir is None else options.workdir.absolute(),
        mesh=mesh,
        num_timed=DEFAULT_STEPS if options.steps is None else options.steps,
        damaged=options.damaged,
        clock=time.perf_counter,
    ):
        print(finding, flush=True)
        failed |= finding.verdict == "FAIL"
    print("it will not run: fix each FAIL" if failed else "it will run")
    return 2 if failed else 0


def _require_together(parser: _cli.Parser, options: argparse.Namespace) -> None:
    """Stops with an error if flags are given that do not belong together."""
    elsewhere = options.data or options.workdir or options.damaged or options.print
    if options.target is not None and elsewhere:
        parser.error(
            "--target checks a config for devices that are not here; leave out --data, "
            "--workdir, --damaged and --print"
        )
    if options.data is not None and (options.workdir or options.print):
        parser.error(
            "--data describes images and checks no run; leave out --workdir and --print"
        )
    if options.steps is not None and (options.data or options.target):
        parser.error("--steps times steps on these devices; leave it out")
    for needed, value, names in (
        ("--target=DEVICES", options.target, ("remedies", "level")),
        ("--data=DIR", options.data, ("out", "overwrite", "sample")),
    ):
        for name in names:
            if value is None and getattr(options, name):
                parser.error(f"--{name} needs {needed}")


def survey_data(options: argparse.Namespace) -> int:
    """Describes the images of `--data`; returns the exit code."""
    options.config = options.config or "folder"
    out = options.out or pathlib.Path(f"{pathlib.Path(options.data).stem}_data.html")
    _cli.keep_compiled_code()
    verdicts = set()
    with _cli.input_errors():
        _cli.require_new(out, options.overwrite)
        for file in filter(None, (out, options.damaged)):
            data_report.require_outside(file, options.data)
        config = data_report.with_data(
            _cli.load_config(options).to_dict(), options.data
        )
        for line in data_report.describe_data(
            config, make_mesh(), out, limit=options.sample or 0, damaged=options.damaged
        ):
            text = line.text.replace("\n", "\n" + " " * 12)
            print(line._replace(text=text), flush=True)
            verdicts.add(line.verdict)
    return 2 if "FAIL" in verdicts else 0


def ask_compiler(options: argparse.Namespace) -> int:
    """Compiles the step for the devices of `--target`; returns the exit code."""
    verdicts = set()
    with _cli.input_errors():
        target = find_target(options.target)
        config = _cli.load_config(options).to_dict()
        for line in describe_target(
            config, target, options.level or DEFAULT_LEVEL, remedies=options.remedies
        ):
            print(line, flush=True)
            verdicts.add(line.verdict)
    if "FAIL" in verdicts:
        print("it will not run there: see FAIL")
        return 2
    return 0


def examine(
    config: Mapping[str, Any],
    *,
    published: Mapping[str, Any],
    folder: pathlib.Path | None,
    mesh: Mesh,
    num_timed: int,
    clock: Callable[[], float],
    damaged: pathlib.Path | None = None,
) -> Iterator[Finding]:
    """Yields the result of each check; checks that depend on a failed one are skipped.

    Args:
        config: the config of the training run.
        published: the config of the same file without changes by flags.
        folder: folder of the run; None if it is not known.
        mesh: mesh of the devices that the run will use.
        num_timed: number of steps to time; 0: no step is timed.
        clock: returns the current time in seconds.
        damaged: file to write the names of all images to that cannot be decoded; None:
            only the training run reports them.
    """

    @functools.cache
    def images() -> ExperimentData:
        return load_images(parse(config).data.location)

    yield _devices(mesh)
    yield _recipe(published, config)
    found = yield from _chosen(config, folder, mesh, images)
    if found is None:
        return
    config = found
    made = yield from _attempt(
        "config",
        lambda: _described(config, mesh),
        lambda _: "all fields are known and in range",
    )
    if made is None:
        return
    spec, state = made
    sources = spec.config.encoder.weights, spec.config.train.start_from
    if any(sources):
        started = yield from _attempt(
            "weights", lambda: recorded(config, folder), _starts
        )
        if started is None:
            return
    found = yield from _attempt("workdir", lambda: _saved(folder, config), _resumes)
    saved = found.steps if found else []
    yield _batch(spec, mesh)
    if damaged is not None:
        yield from _images(images, spec.config.data.threads, damaged)
    opened = yield from _attempt(
        "data",
        lambda: _opened(config, folder, mesh, images()),
        lambda made: "\n".join(made.lines).replace("\n", "\n" + " " * 14),
    )
    if opened is None:
        return
    experiment = opened.experiment
    place = folder or pathlib.Path.cwd()
    yield _disk(experiment.spec.schedule, spec.config.train, state, place, len(saved))
    yield _queue(experiment.spec)
    left = max(0, experiment.spec.schedule.num_steps - max(saved, default=0))
    yield from _try(experiment, left, num_timed, clock)


def _chosen(
    config: Mapping[str, Any],
    folder: pathlib.Path | None,
    mesh: Mesh,
    images: Callable[[], ExperimentData],
) -> Generator[Finding, None, Mapping[str, Any] | None]:
    """States and returns the config with values for its open fields, if it has any."""
    if not open_fields(config):
        return {**config, "auto": False}
    made = yield from _attempt(
        "chosen",
        lambda: chosen(config, folder, mesh, images),
        lambda made: (
            made[1].replace("\n", "\n" + " " * 12)
            or "the values that the run in the workdir began with"
        ),
    )
    return None if made is None else made[0]


def _images(
    images: Callable[[], ExperimentData], threads: int, file: pathlib.Path
) -> Iterator[Finding]:
    """Decodes all images, and writes the names of those that cannot be decoded."""
    try:
        sources = _distinct(images())
        found = list(
            itertools.chain.from_iterable(
                eval_crops.damaged(source, threads=threads) for source in sources
            )
        )
        data_report.write_lines(file, found)
    except PROBLEMS as error:
        yield Finding("FAIL", "images", " ".join(str(error).split()))
        return
    count = sum(map(len, sources))
    text = f"{len(found):,} of {count:,} cannot be decoded; {file} lists them"
    yield Finding("warn" if found else "ok", "images", text)


def _distinct(data: ExperimentData) -> list[ImageSource]:
    """The sources of images; the bank is often the training images."""
    parts = (data.train, data.bank, data.queries)
    return list({id(part): part for part in parts if part is not None}.values())


def _try(
    experiment: Experiment,
    steps_left: int,
    num_timed: int,
    clock: Callable[[], float],
) -> Iterator[Finding]:
    """Checks the memory that the compiled step needs, and times the step."""
    trial = yield from _attempt(
        "step", lambda: Trial(experiment), lambda _: "compiled for these devices"
    )
    if trial is None:
        return
    limit, owner = usable_memory(experiment.mesh)
    memory = _memory(
        trial.num_bytes,
        limit,
        owner,
        lambda: remedy(experiment, limit, trial.num_bytes),
    )
    yield memory
    if num_timed and memory.verdict != "FAIL":
        yield from _attempt(
            "time",
            lambda: trial.seconds(num_timed, clock),
            lambda seconds: _time(seconds, steps_left),
        )


def _attempt(
    subject: str, make: Callable[[], Made], describe: Callable[[Made], str]
) -> Generator[Finding, None, Made | None]:
    """Yields the finding of one check and returns the value that the check made.

    Args:
        subject: name of the check, one word.
        make: function without arguments that makes the value; the check fails, and None
            is returned, if it raises one of `PROBLEMS`.
        describe: function from the value to the text of the finding.
    """
    try:
        made = make()
    except PROBLEMS as error:
        yield Finding("FAIL", subject, " ".join(str(error).split()))
        return None
    yield Finding("ok", subject, describe(made))
    return made


class Trial:
    """Compiled training step of an experiment.

    Args:
        experiment: experiment whose training step is compiled.
    """

    def __init__(self, experiment: Experiment):
        self._experiment, self._loader = experiment, experiment.loader
        step, examples = experiment.train_step, self._loader.shapes()
        traced = traced_step(experiment.spec, step, experiment.mesh, examples)
        self._compiled = program_cache.compile(step.compiled, traced.lower())
        self._step = step._replace(compiled=self._compiled)

    @property
    def num_bytes(self) -> int:
        """Bytes that a device needs for the step and for images kept in its memory."""
        return step_bytes(self._compiled) + stored_bytes(self._experiment)

    def seconds(self, num_steps: int, clock: Callable[[], float]) -> float:
        """Returns the median time of a step and of loading its batch, in seconds.

        One more step, the first, is run and not timed.

        Args:
            num_steps: number of steps to time.
            clock: returns the current time in seconds.
        """
        ends, state = [], self._experiment.init()
        for examples, epoch in self._loader.batches(0, num_steps + 1):
            state, metrics = self._step(state, examples, epoch)
            jax.block_until_ready(metrics)
            ends.append(clock())
        return float(np.median(np.diff(ends)))


def _devices(mesh: Mesh) -> Finding:
    kinds = sorted({device.device_kind for device in mesh.devices.flat})
    return Finding("ok", "devices", f"{mesh.devices.size} x {', '.join(kinds)}")


def _recipe(published: Mapping[str, Any], config: Mapping[str, Any]) -> Finding:
    changed = workdir.differences(published, config)
    if not changed:
        return Finding("ok", "recipe", "all fields have the values of the config file")
    lines = [f"{len(changed)} fields differ from the config file:", *changed]
    return Finding("warn", "recipe", ("\n" + " " * 14).join(lines))


class SavedRun(NamedTuple):
    """A run in the folder.

    Attributes:
        steps: steps of its checkpoints.
        changed: fields that get new values, one line per field.
    """

    steps: list[int]
    changed: list[str]


def _saved(folder: pathlib.Path | None, config: Mapping[str, Any]) -> SavedRun:
    if folder is None:
        return SavedRun([], [])
    changed = workdir.check_config(folder, recorded(config, folder))
    if not (folder / "checkpoints").is_dir():
        return SavedRun([], changed)
    with CheckpointManager(folder / "checkpoints", read_only=True) as checkpoints:
        return SavedRun(checkpoints.steps(), changed)


def _resumes(saved: SavedRun) -> str:
    steps, changed = saved
    text = f"the run resumes after step {steps[-1]}" if steps else "the run is new"
    return f"{text}; {workdir.as_resumed(changed)}" if changed else text


def _starts(config: Mapping[str, Any]) -> str:
    encoder, train = config["encoder"], config["train"]
    return encoder["weights_record"] or train["start_record"]


def _described(config: Mapping[str, Any], mesh: Mesh) -> tuple[Any, Any]:
    spec = make_spec(config, num_devices=mesh.devices.size)
    return spec, spec.check(mesh.devices.size)


class OpenedData(NamedTuple):
    """An experiment with its data, and lines about them."""

    experiment: Experiment
    lines: list[str]


def _opened(
    config: Mapping[str, Any],
    folder: pathlib.Path | None,
    mesh: Mesh,
    images: ExperimentData,
) -> OpenedData:
    """Decodes the images; raises if they are not those of the run in the folder."""
    note = workdir.require_same_data(folder, fingerprint(images)) if folder else ""
    experiment = make_experiment(config, mesh, images)
    lines = experiment.loading.removeprefix("data: ").split("\ndata: ")
    return OpenedData(experiment, [*lines, *([note] if note else [])])


def _batch(spec: ExperimentSpec, mesh: Mesh) -> Finding:
    size, count = spec.config.data.batch_size, mesh.devices.size
    seeds = len(spec.schedule.seeds)
    each = f", for each of {seeds} seeds" if seeds > 1 else ""
    return Finding("ok", "batch", f"{size} = {count} devices x {size // count}{each}")


def _queue(spec: ExperimentSpec) -> Finding:
    method: Any = getattr(spec.method, "base", spec.method)
    size = getattr(method, "queue_size", 0)
    if not size:
        return Finding("ok", "queue", "none")
    batch_size, steps = spec.config.data.batch_size, spec.schedule.steps_per_epoch
    epoch = batch_size * steps
    text = f"{size} = {size / batch_size:g} batches"
    if size <= epoch:
        return Finding("ok", "queue", text)
    keys = 1
    if isinstance(method, MoCo):
        keys = len(method.enqueued_views(spec.crops["global_crops"].count))
    fits = batch_size * keys * max(1, steps // keys)
    remedy = f"config.method.queue_size={fits}"
    if size <= fits:  # the queue holds the keys of one step
        remedy = f"config.data.batch_size={batch_size // 2}"
    return Finding(
        "warn",
        "queue",
        f"{text}, in which each image is {size / epoch:.3g} times, also as its own "
        f"negative; use {remedy} or less",
    )


def _disk(
    schedule: TrainingSchedule,
    config: TrainConfig,
    state: Any,
    folder: pathlib.Path,
    num_saved: int,
) -> Finding:
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    if in_bucket(folder):
        return Finding("ok", "disk", f"{gib(size)} for each checkpoint in the bucket")
    place = workdir.existing(folder)
    free = shutil.disk_usage(place).free
    every = config.keep_every_steps
    kept = config.keep_newest + bool(config.keep_best)
    kept += schedule.num_steps // every if every else 0
    # while the newest checkpoint is written, no older one has been deleted yet
    needed = size * max(1, kept + 1 - num_saved)
    text = (
        f"{gib(needed)} needed for checkpoints of {gib(size)} each, {gib(free)} "
        f"free in {place}"
    )
    if needed > free:
        return Finding(
            "FAIL", "disk", f"{text}; free some space, or use another --workdir"
        )
    return Finding("warn" if needed > TIGHT * free else "ok", "disk", text)


def _memory(
    needed: float, limit: float, owner: str, remedy: Callable[[], str]
) -> Finding:
    text = f"peak of {gib(needed)} per device, of {owner} {gib(limit)}"
    if needed > limit:
        return Finding("FAIL", "memory", f"{text}; use {remedy()}, or more devices")
    return Finding("warn" if needed > TIGHT * limit else "ok", "memory", text)


def _time(seconds: float, num_steps: int) -> str:
    whole = datetime.timedelta(seconds=round(num_steps * seconds))
    return f"{whole} for {num_steps} steps of {seconds:.3g} s, without kNN"


def _parser() -> _cli.Parser:
    parser = _cli.Parser("doctor", __doc__, has_fields=True)
    parser.add_config("config of the training run")
    parser.add_workdir("folder of the run", required=False)
    parser.add_argument(
        "--steps",
        metavar="N",
        type=_cli.at_least(0),
        help="number of steps to time, after one that is not timed; 0: none; default "
        f"{DEFAULT_STEPS}",
    )
    parser.add_argument(
        "--damaged",
        metavar="FILE",
        type=_cli.path,
        help="also decode every image, and write the names of those that cannot be "
        "decoded to FILE, one a line, with the reason",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="describe these images instead: a folder, an .npz file, or a TFDS name",
    )
    parser.add_argument(
        "--out",
        metavar="FILE.html",
        type=_cli.path,
        help="with --data: the page; default <DIR>_data.html in the current folder",
    )
    parser.add_overwrite()
    parser.add_argument(
        "--sample",
        metavar="N",
        type=_cli.at_least(0),
        help="with --data: read N images of each split, evenly spaced; default all",
    )
    parser.add_argument(
        "--target",
        metavar="DEVICES",
        help="compile the step for devices that are not here, and run nothing: "
        f"{FORMS}",
    )
    parser.add_argument(
        "--level",
        choices=tuple(LEVELS),
        help="with --target: level of the compiler's optimization; `default`, which "
        f"runs have, takes several times as long as {DEFAULT_LEVEL}, the default here",
    )
    parser.add_argument(
        "--remedies",
        action="store_true",
        help="with --target: also compile the step in bfloat16, with remat, in more "
        "parts and with half the batch size",
    )
    parser.add_argument(
        "--print",
        action="store_true",
        help="print every field of the config, and check nothing",
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
