"""The page about runs: configs, machines, curves and images."""

import functools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from logo_jax.data.fingerprint import fingerprint
from logo_jax.data.load import ExperimentData, load_images
from logo_jax.experiment import parse, pretrained
from logo_jax.experiment.experiment import some_of
from logo_jax.experiment.spec import make_spec
from logo_jax.parallel.mesh import all_devices, make_mesh
from logo_jax.training import atomic, workdir
from logo_jax.training.checkpoints.manager import saved_steps
from logo_jax.training.logging.metric_writer import (
    METRICS_FILE,
    Row,
    best_row,
    is_knn,
    read_rows,
)
from logo_jax.visualization import curves, run_figures
from logo_jax.visualization.crop_grid import crop_grid
from logo_jax.visualization.html_page import Block, Section, Table, files
from logo_jax.visualization.run_crops import crop_examples

Config = Mapping[str, Any]
NOT_RECORDED = "not recorded"


class RunRecord(NamedTuple):
    """Contents of the files of a run.

    Attributes:
        name: name of the run on the page.
        folder: folder of the run.
        config: the config that the run was started with.
        rows: rows of metrics.jsonl.
        machine: the machine of the run's latest start; empty if it was not recorded.
        evaluations: results of `logo_jax.evaluate`, by the names of their files.
    """

    name: str
    folder: Path
    config: Config
    rows: list[Row]
    machine: Mapping[str, Any]
    evaluations: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    recipe: Config | None = None,
    with_images: bool = True,
    images: ExperimentData | None = None,
) -> None:
    """Writes the page about the runs of some folders to the folder `out`.

    Args:
        folders: folders of runs, in the order in which they are drawn.
        out: folder of the page; if it exists, its files of the same names are replaced.
        recipe: config to compare the runs with; None for no comparison.
        with_images: whether the page has figures that need images or a checkpoint.
        images: the images of the runs; if None, those of each run's config.

    Raises:
        FileNotFoundError: if a folder contains no run.
        ValueError: if a run cannot be read, or is given twice.
        OSError: if the page cannot be written.
    """
    runs = read_runs(folders)
    sections = [overview(runs, recipe), measured(runs), *evaluated(runs)]
    if with_images:
        sections += [
            seen(run, f"run{i}-" if len(runs) > 1 else "", images)
            for i, run in enumerate(runs, 1)
        ]
    names = ", ".join(run.name for run in runs)
    write_page(out, f"Training report: {names}", sections)


def write_page(out: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes the page and its figures, or nothing if an error occurs."""
    with atomic.replace(out) as partial:
        partial.mkdir()
        for name, content in files(title, sections).items():
            (partial / name).write_bytes(content)


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
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


def read_run(folder: Path, name: str) -> RunRecord:
    """Reads the run of a folder."""
    recorded = folder / workdir.MACHINE_FILE
    return RunRecord(
        name=name,
        folder=folder,
        config=workdir.read_config(folder),
        rows=read_rows(folder / METRICS_FILE),
        machine=json.loads(recorded.read_text()) if recorded.exists() else {},
        evaluations={
            file.stem: _result(file)
            for file in sorted((folder / "evaluations").glob("*.json"))
        },
    )


def _result(file: Path) -> Mapping[str, Any]:
    """Reads the result of an evaluation.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        found = json.loads(file.read_text())
        return {name: found[name] for name in ("values", "encoder", "dataset")} | found
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); evaluate again, or delete it"
        ) from error


def overview(runs: Sequence[RunRecord], recipe: Config | None) -> Section:
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


def facts_of(run: RunRecord) -> dict[str, str]:
    """Returns the main facts of a run by name; all runs have the same names."""
    config, rows = run.config, run.rows
    speeds = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    top1 = (
        name
        for name in curves.metric_names({"": rows})
        if is_knn(name) and name.endswith(("/top1", "/map"))
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
        "best checkpoint": _best(run),
        "images per second": f"{statistics.median(speeds):.4g}, median"
        if speeds
        else "-",
        "devices": run.machine.get("devices", NOT_RECORDED),
        "processor cores": str(run.machine.get("cores", NOT_RECORDED)),
        "system": run.machine.get("system", NOT_RECORDED),
        "versions": ", ".join(f"{name} {x}" for name, x in versions.items())
        or NOT_RECORDED,
    }


def _best(run: RunRecord) -> str:
    """The checkpoint that `train.keep_best` keeps; "-" if it keeps none."""
    metric, steps = run.config["train"]["keep_best"], run.folder / "checkpoints"
    best = best_row(run.rows, metric, saved_steps(steps))
    return f"step {best['step']:,}: {best[metric]:.2f} % ({metric})" if best else "-"


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


def _from_recipe(run: RunRecord, recipe: Config) -> Block:
    rows = compared({"recipe": recipe, run.name: run.config})
    title = f"Fields in which {run.name} differs from the recipe"
    if not rows:
        return f"All fields of {run.name} have the values of the recipe."
    return Table(title, ["field", "recipe", run.name], rows)


def _fields(config: Config) -> list[list[str]]:
    return [[name, str(value)] for name, value in workdir.flatten(config)]


def measured(runs: Sequence[RunRecord]) -> Section:
    """Returns the section with the curves of all runs."""
    pictures = curves.plot_curves({run.name: run.rows for run in runs})
    return Section("Curves", pictures or ["Nothing has been measured yet."])


def evaluated(runs: Sequence[RunRecord]) -> list[Section]:
    """Returns the section with the results of evaluations; none without results."""
    columns = ["evaluation", "encoder", "data set", "labels", "metric", "value"]
    tables = [
        Table(
            f"Evaluations of {run.name}",
            columns,
            [
                [name, *_about(result), metric, f"{value:.2f} %"]
                for name, result in run.evaluations.items()
                for metric, value in result["values"].items()
            ],
        )
        for run in runs
        if run.evaluations
    ]
    return [Section("Evaluations", tables)] if tables else []


def _about(result: Mapping[str, Any]) -> list[str]:
    """The encoder, the data set and the labels of an evaluation."""
    few = result.get("labels")
    labels = f"{few['images']:,} (seed {few['seed']})" if few else "all"
    return [result["encoder"], result["dataset"], labels]


def seen(run: RunRecord, prefix: str, given: ExperimentData | None) -> Section:
    """Returns the section with a run's crops and features, or why they are missing.

    Args:
        run: the run.
        prefix: prefix of the file names of the figures.
        given: the run's images; if None, those of its config.
    """
    mesh = make_mesh(all_devices()[:1])

    @functools.cache
    def images() -> ExperimentData:
        return given or load_images(parse(run.config).data.location)

    def changes() -> list[str]:
        found = workdir.data_changes(run.folder, fingerprint(images()))
        return [f"Note: {workdir.changes_note(found)}."] if found else []

    def crops() -> list[Block]:
        spec = make_spec({**run.config, "seeds": 1}, num_devices=1)
        examples = some_of(images().train, spec)
        return [
            *changes(),
            crop_grid(f"{prefix}crops", crop_examples(spec, examples)),
        ]

    def features() -> Sequence[Block]:
        subject = next(pretrained.from_run(run.folder, run.config, mesh).seeds())
        return run_figures.feature_figures(prefix, subject, images())

    seeds = run.config["seeds"]
    blocks: list[Block] = []
    if seeds > 1:
        blocks.append(
            f"The figures show seed {run.config['seed']}, the first of {seeds}."
        )
    blocks += [*_or_why_not("crops", crops), *_or_why_not("features", features)]
    return Section(f"Crops and features of {run.name}", blocks)


def _or_why_not(what: str, make: Callable[[], Sequence[Block]]) -> Sequence[Block]:
    """Returns the figures, or the reason if data or a checkpoint cannot be read."""
    try:
        return make()
    except (ValueError, OSError) as error:
        return [f"No figures of {what}: {' '.join(str(error).split()).rstrip('.')}."]
