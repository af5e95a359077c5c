"""Writes a page about runs: what they are, what they measured, what they see.

    python -m logo_jax.report WORKDIR [WORKDIR...] [--config=FILE] [--out=DIR]
    python -m logo_jax.report similarity --workdir=WORKDIR --out=DIR [--images=DIR]

DIR/index.html needs nothing but itself; its figures are beside it too, as PNG. Several
runs share their curves, in the order given, and are compared field by field. With
--config, each is compared with what that file says. Pictures that need images or a
checkpoint are left out where these are missing, and the page says why. `report
similarity --help` tells of the second form.

Exit codes: 0 written; 2 bad input, told in one line on stderr.
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
    """What the files of a run say.

    Attributes:
        name: by which the page calls it.
        folder: of the run.
        config: it was started with.
        rows: of metrics.jsonl.
        machine: what it last ran on; empty where it has not been recorded.
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
    """Runs the command line of a page about runs."""
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
    """Writes the page and its figures: all of them or none."""
    with atomic.replace(out) as partial:
        partial.mkdir()
        for name, content in files(title, sections).items():
            (partial / name).write_bytes(content)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of the folders, by names that differ.

    Raises:
        FileNotFoundError: where one is no run's.
        ValueError: where one cannot be read, or is given twice.
    """
    paths = [folder.absolute() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError(f"{', '.join(map(str, folders))}: name each run once")
    short = [path.name for path in paths]
    several = len(set(short)) < len(short)
    return [read_run(path, str(path) if several else path.name) for path in paths]


def read_run(folder: Path, name: str) -> Run:
    """The run of a folder, by that name."""
    recorded = folder / workdir.MACHINE_FILE
    return Run(
        name=name,
        folder=folder,
        config=workdir.read_config(folder),
        rows=read_rows(folder / METRICS_FILE),
        machine=json.loads(recorded.read_text()) if recorded.exists() else {},
    )


def read_recipe(options: argparse.Namespace) -> Config:
    """What the file of `--config` says, as a run's config.json has it.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it has no such variant.
    """
    said = _cli.load_config(options).to_dict()
    return workdir.as_tuples(json.loads(json.dumps(said)))


def overview(runs: Sequence[Run], recipe: Config | None) -> Section:
    """What each run is: its config and how that differs, its machine."""
    names = [run.name for run in runs]
    facts = list(zip(*(facts_of(run).items() for run in runs), strict=True))
    rows = [[row[0][0], *(value for _, value in row)] for row in facts]
    blocks: list[Block] = [Table("Summary", ["", *names], rows)]
    if len(runs) > 1:
        fields = compared({run.name: run.config for run in runs})
        blocks.append(Table("Where their configs differ", ["field", *names], fields))
    if recipe is None:
        blocks.append("No --config was given to compare the runs' configs with.")
    else:
        blocks += [_from_recipe(run, recipe) for run in runs]
    blocks += [
        Table(f"Config of {run.name}", ["field", "value"], _fields(run.config), True)
        for run in runs
    ]
    return Section("Config and machine", blocks)


def facts_of(run: Run) -> dict[str, str]:
    """What a reader asks first, by name; the same names for every run."""
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
        "steps measured": f"{rows[-1]['step']:,}" if rows else "none",
        "last accuracy": f"{curves.last(rows, knn)} % ({knn})" if knn else "-",
        "images a second": f"{statistics.median(speeds):.4g}, median"
        if speeds
        else "-",
        "devices": run.machine.get("devices", NOT_RECORDED),
        "processor cores": str(run.machine.get("cores", NOT_RECORDED)),
        "system": run.machine.get("system", NOT_RECORDED),
        "versions": ", ".join(f"{name} {x}" for name, x in versions.items())
        or NOT_RECORDED,
    }


def compared(configs: Mapping[str, Config]) -> list[list[str]]:
    """Fields that are not the same in all configs, and their values in each.

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
    title = f"Where {run.name} departs from the recipe"
    if not rows:
        return f"Every field of {run.name} is as in the recipe."
    return Table(title, ["field", "recipe", run.name], rows)


def _fields(config: Config) -> list[list[str]]:
    return [[name, str(value)] for name, value in workdir.flatten(config)]


def measured(runs: Sequence[Run]) -> Section:
    """The curves of all runs."""
    pictures = curves.plot_curves({run.name: run.rows for run in runs})
    return Section("Curves", pictures or ["Nothing has been measured yet."])


def seen(run: Run, prefix: str) -> Section:
    """What the run's network sees, or why that cannot be shown.

    Args:
        run: any.
        prefix: of the names of its pictures' files.
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
        blocks.append(f"Of seed {run.config['seed']}, the first of {seeds}.")
    blocks += [*_or_why_not("crops", crops), *_or_why_not("features", features)]
    return Section(f"What {run.name} sees", blocks)


def _or_why_not(what: str, make: Callable[[], list[RenderedFigure]]) -> Sequence[Block]:
    """Pictures; where data or checkpoint cannot be read, a sentence that says so."""
    try:
        return make()
    except (ValueError, OSError) as error:
        return [f"No pictures of {what}: {' '.join(str(error).split()).rstrip('.')}."]


def _parser() -> _cli.Parser:
    parser = _cli.Parser("report", __doc__)
    parser.add_argument(
        "workdirs", metavar="WORKDIR", type=_cli.path, nargs="+", help="folder of a run"
    )
    parser.add_out("folder of the page; default report in WORKDIR", required=False)
    parser.add_overwrite()
    parser.add_config("the recipe to compare with")
    parser.add_argument(
        "--no_images", action="store_true", help="read no data and no checkpoint"
    )
    return parser


SIMILARITY = f"""{similarity.__doc__}
    python -m logo_jax.report similarity --workdir=WORKDIR --out=DIR [--images=DIR]

Images are the run's test images, or its training images where it has none, or those of
--images. --draw draws other crops.

Exit codes: 0 written; 2 bad input, told in one line on stderr.
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
        help="a folder of images; its sub-folders are classes",
    )
    parser.add_seed()
    parser.add_argument(
        "--draw",
        metavar="N",
        type=int,
        default=0,
        help="number of the random draw; default 0",
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
