"""Writes an HTML report about runs: configs, machines, curves and images.

    python -m logo_jax.report WORKDIR [WORKDIR...] [--config=FILE] [--out=DIR]
    python -m logo_jax.report similarity --workdir=WORKDIR --out=DIR [--images=DIR]

DIR/index.html contains all its figures and loads no other file; the figures are also
written to DIR as PNG files. The curves of several runs are drawn together, in the order
given, and their configs are compared field by field. With --config, the config of each
run is also compared with that file. Figures that need images or a checkpoint are
omitted if these are missing, and the page states the reason. `report similarity --help`
describes the second form.

Exit codes: 0 if the page is written; 2 for bad input, which is reported in one line on
stderr.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from logo_jax import _cli
from logo_jax.data.load import load_images
from logo_jax.experiment import parse, pretrained
from logo_jax.experiment.experiment import some_of
from logo_jax.experiment.spec import make_spec
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training import atomic, workdir
from logo_jax.training.logging.metric_writer import (
    METRICS_FILE,
    Row,
    is_knn,
    read_rows,
)
from logo_jax.visualization import curves, run_figures, similarity
from logo_jax.visualization.figure import RenderedFigure
from logo_jax.visualization.html_page import Block, Section, Table, files
from logo_jax.visualization.image_grids import crop_grid

Config = Mapping[str, Any]
NOT_RECORDED = "not recorded"


class Run(NamedTuple):
    """Contents of the files of a run.

    Attributes:
        name: name of the run on the page.
        folder: folder of the run.
        config: the config that the run was started with.
        rows: rows of metrics.jsonl.
        machine: the machine of the run's latest start; empty if it was not recorded.
    """

    name: str
    folder: Path
    config: Config
    rows: list[Row]
    machine: Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["similarity"]:
        write_similarity(arguments[1:])
    else:
        write_report(arguments)


def write_report(arguments: Sequence[str]) -> None:
    """Runs the command line of `report`."""
    options = _parser().parse(arguments)
    _cli.keep_compiled_code()
    out = options.out or options.workdirs[0] / "report"
    with _cli.input_errors():
        _cli.require_new(out, options.overwrite)
        runs = read_runs(options.workdirs)
        recipe = None if options.config is None else read_recipe(options)
        sections = [overview(runs, recipe), measured(runs)]
        if not options.no_images:
            sections += [
                seen(run, prefix=f"run{i}-" if len(runs) > 1 else "")
                for i, run in enumerate(runs, 1)
            ]
        names = ", ".join(run.name for run in runs)
        _write_page(out, f"Training report: {names}", sections)
    print(f"wrote {out / 'index.html'}")


def write_similarity(arguments: Sequence[str]) -> None:
    """Runs the command line of `report similarity`."""
    options = _similarity_parser().parse(arguments)
    _cli.keep_compiled_code()
    with _cli.input_errors():
        _cli.require_new(options.out, options.overwrite)
        about, figures = similarity.make_figures(
            options.workdir,
            images=options.images,
            seed=options.seed,
            draw=options.draw,
        )
        title = f"Learned affinity and cosine: {options.workdir.absolute().name}"
        _write_page(options.out, title, [Section("Similarity", [about, *figures])])
    for figure in figures:
        print(f"{figure.title}: {figure.alt}")
    print(f"wrote {options.out / 'index.html'}")


def _write_page(out: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes the page and its figures, or nothing if an error occurs."""
    with atomic.replace(out) as partial:
        partial.mkdir()
        for name, content in files(title, sections).items():
            (partial / name).write_bytes(content)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads the runs of the folders and gives them distinct names.

    Raises:
        FileNotFoundError: if a folder contains no run.
        ValueError: if a run cannot be read, or is given twice.
    """
    paths = [folder.absolute() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError(
            f"a run is repeated in {', '.join(map(str, folders))}; give each run once"
        )
    short = [path.name for path in paths]
    several = len(set(short)) < len(short)
    return [read_run(path, str(path) if several else path.name) for path in paths]


def read_run(folder: Path, name: str) -> Run:
    """Reads the run of a folder."""
    recorded = folder / workdir.MACHINE_FILE
    return Run(
        name=name,
        folder=folder,
        config=workdir.read_config(folder),
        rows=read_rows(folder / METRICS_FILE),
        machine=json.loads(recorded.read_text()) if recorded.exists() else {},
    )


def read_recipe(options: argparse.Namespace) -> Config:
    """Loads the config of `--config`, in the form of a run's config.json.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file does not have the variant.
    """
    config = _cli.load_config(options).to_dict()
    return workdir.as_tuples(json.loads(json.dumps(config)))


def overview(runs: Sequence[Run], recipe: Config | None) -> Section:
    """Returns the section about the configs, their differences, and the machines."""
    names = [run.name for run in runs]
    facts = list(zip(*(facts_of(run).items() for run in runs), strict=True))
    rows = [[row[0][0], *(value for _, value in row)] for row in facts]
    blocks: list[Block] = [Table("Summary", ["", *names], rows)]
    if len(runs) > 1:
        fields = compared({run.name: run.config for run in runs})
        blocks.append(
            Table("Fields in which the configs differ", ["field", *names], fields)
        )
    if recipe is None:
        blocks.append(
            "The configs are not compared with a recipe, since --config was not given."
        )
    else:
        blocks += [_from_recipe(run, recipe) for run in runs]
    blocks += [
        Table(f"Config of {run.name}", ["field", "value"], _fields(run.config), True)
        for run in runs
    ]
    return Section("Config and machine", blocks)


def facts_of(run: Run) -> dict[str, str]:
    """Returns the main facts of a run by name; all runs have the same names."""
    config, rows = run.config, run.rows
    speeds = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    top1 = (
        name
        for name in curves.metric_names({"": rows})
        if is_knn(name) and name.endswith("/top1")
    )
    knn = next(top1, "")
    versions = run.machine.get("versions", {})
    return {
        "folder": str(run.folder),
        "method": f"{config['method']['name']}, LoGo: {config['logo']['update_kind']}",
        "encoder": config["encoder"]["backbone"],
        "data": parse(config).data.location.title,
        "batch size": str(config["data"]["batch_size"]),
        "seeds": f"{config['seeds']} from {config['seed']}",
        "steps recorded": f"{rows[-1]['step']:,}" if rows else "none",
        "last accuracy": f"{curves.last(rows, knn)} % ({knn})" if knn else "-",
        "images per second": f"{statistics.median(speeds):.4g}, median"
        if speeds
        else "-",
        "devices": run.machine.get("devices", NOT_RECORDED),
        "processor cores": str(run.machine.get("cores", NOT_RECORDED)),
        "system": run.machine.get("system", NOT_RECORDED),
        "versions": ", ".join(f"{name} {x}" for name, x in versions.items())
        or NOT_RECORDED,
    }


def compared(configs: Mapping[str, Config]) -> list[list[str]]:
    """Returns the fields that are not the same in all configs, with their values.

    >>> compared({"a": {"x": 1, "y": {"z": 2}}, "b": {"x": 1, "y": {"z": 3}}})
    [['y.z', '2', '3']]
    """
    flat = [dict(workdir.flatten(config)) for config in configs.values()]
    rows = [
        [name, *(str(fields.get(name, "absent")) for fields in flat)]
        for name in sorted({name for fields in flat for name in fields})
    ]
    return [row for row in rows if len(set(row[1:])) > 1]


def _from_recipe(run: Run, recipe: Config) -> Block:
    rows = compared({"recipe": recipe, run.name: run.config})
    title = f"Fields in which {run.name} differs from the recipe"
    if not rows:
        return f"All fields of {run.name} have the values of the recipe."
    return Table(title, ["field", "recipe", run.name], rows)


def _fields(config: Config) -> list[list[str]]:
    return [[name, str(value)] for name, value in workdir.flatten(config)]


def measured(runs: Sequence[Run]) -> Section:
    """Returns the section with the curves of all runs."""
    pictures = curves.plot_curves({run.name: run.rows for run in runs})
    return Section("Curves", pictures or ["Nothing has been measured yet."])


def seen(run: Run, prefix: str) -> Section:
    """Returns the section with a run's crops and features, or why they are missing.

    Args:
        run: the run.
        prefix: prefix of the file names of the figures.
    """
    mesh = make_mesh(jax.devices()[:1])

    def crops() -> list[RenderedFigure]:
        spec = make_spec({**run.config, "seeds": 1}, num_devices=1)
        images = load_images(spec.config.data.location).train
        examples = some_of(images, spec)
        return [crop_grid(f"{prefix}crops", run_figures.crop_examples(spec, examples))]

    def features() -> list[RenderedFigure]:
        subject = next(pretrained.from_run(run.folder, run.config, mesh).seeds())
        data = load_images(subject.spec.config.data.location)
        return run_figures.feature_figures(prefix, subject, data)

    seeds = run.config["seeds"]
    blocks: list[Block] = []
    if seeds > 1:
        blocks.append(
            f"The figures show seed {run.config['seed']}, the first of {seeds}."
        )
    blocks += [*_or_why_not("crops", crops), *_or_why_not("features", features)]
    return Section(f"Crops and features of {run.name}", blocks)


def _or_why_not(what: str, make: Callable[[], list[RenderedFigure]]) -> Sequence[Block]:
    """Returns the figures, or the reason if data or a checkpoint cannot be read."""
    try:
        return make()
    except (ValueError, OSError) as error:
        return [f"No figures of {what}: {' '.join(str(error).split()).rstrip('.')}."]


def _parser() -> _cli.Parser:
    parser = _cli.Parser("report", __doc__)
    parser.add_argument(
        "workdirs", metavar="WORKDIR", type=_cli.path, nargs="+", help="folder of a run"
    )
    parser.add_out("folder of the page; default: WORKDIR/report", required=False)
    parser.add_overwrite()
    parser.add_config("config to compare the runs with")
    parser.add_argument(
        "--no_images",
        action="store_true",
        help="omit figures that need images or a checkpoint, and read neither",
    )
    return parser


SIMILARITY = f"""{similarity.__doc__}
    python -m logo_jax.report similarity --workdir=WORKDIR --out=DIR [--images=DIR]

Images are the run's test images (its training images if it has no test images), or
those of --images. Another value of --draw draws other crops.

Exit codes: 0 if the page is written; 2 for bad input, which is reported in one line on
stderr.
"""


def _similarity_parser() -> _cli.Parser:
    parser = _cli.Parser("report similarity", SIMILARITY)
    parser.add_workdir("folder of a run")
    parser.add_out("folder of the page")
    parser.add_overwrite()
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=_cli.path,
        help="folder of images; its sub-folders are classes",
    )
    parser.add_seed()
    parser.add_argument(
        "--draw",
        metavar="N",
        type=int,
        default=0,
        help="seed of the random crops; default 0",
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
