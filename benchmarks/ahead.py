"""Compiles the steps of the published configs for TPUs and GPUs that are not here.

    python -m benchmarks.ahead OUT.jsonl [--configs=cifar10_moco,...] [--level=default]
    python -m benchmarks.ahead OUT.jsonl --page
    python -m benchmarks.ahead OUT.jsonl [--configs=...] --level=lowered
    python -m benchmarks.ahead OUT.jsonl --hosts
    python -m benchmarks.ahead OUT.jsonl --runs
    python -m benchmarks.ahead NEW.jsonl --compare=OLD.jsonl

Each step is a line of OUT.jsonl, written when it has been compiled; a step that has its
line is not compiled again, so the command can be stopped and repeated. `--page` prints
the table of docs/performance.md, `--hosts` what hosts must read for steps that take
their floor, `--runs` the operations of whole runs, and `--compare` the figures that
differ by more than 1 % between two files, for example of two versions of jax. The level
`lowered` only counts operations, which takes seconds; its floor is that of matrix
products. No time of a step is a measurement.
Needs pip install -e ".[tpu,aot-cuda]", in an environment of its own.
"""

import argparse
import datetime
import importlib.metadata
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from logo_jax import configs
from logo_jax.data.load import ExperimentData
from logo_jax.experiment import make_spec, parse
from logo_jax.experiment.ahead import (
    LEVELS,
    AheadStep,
    CompilerError,
    compile_ahead,
    floor_seconds,
    known_images,
    lower_ahead,
    lowered_flops,
)
from logo_jax.parallel.targets import find_target

TARGETS = ("v5e:2x2", "v6e:2x2", "h100")
LOWERED = "lowered"  # no compilation
BASES = ("cifar10", "stl10", "imagenet100", "coco")
# columns of the page: title, key of a row, divisor, format
COLUMNS = (
    ("memory, GB", "num_bytes", 1e9, ".3g"),
    ("of which code, MB", "code", 1e6, ".0f"),
    ("TFLOP", "flops", 1e12, ".3g"),
    ("moved, GB", "moved", 1e9, ".3g"),
    ("instructions", "instructions", 1, ",.0f"),
    ("time by the compiler's model, ms", "seconds", 1e-3, ".3g"),
    ("floor, ms", "floor", 1e-3, ".3g"),
    ("compilation, processor s", "compilation", 1, ".0f"),
)
# Images that one core reads in a second, measured by benchmarks.reduced: by the side of
# the canvas, from files and from stored pixels.
READ = {
    "files": {512: 782, 640: 404},
    "pixels": {256: 5921, 512: 1952, 640: 882},
}
# compilation time depends on the machine
COMPARED = ("num_bytes", "code", "flops", "moved", "instructions", "seconds", "summed")


def published() -> list[str]:
    """Returns the names of the configs of the paper's data sets."""
    names = sorted(path.stem for path in configs.FOLDER.glob("*.py"))
    return [name for name in names if name.split("_")[0] in BASES]


def compiled(config: str, target: str, level: str, fields: dict[str, str]) -> dict:
    """Compiles a step; returns its row."""
    found = find_target(target)
    chosen = configs.load(config, fields).to_dict()
    data = parse(chosen).data
    images = known_images(data, _not_here)
    spec = make_spec(
        chosen,
        num_devices=found.mesh.devices.size,
        steps_per_epoch=images.count // data.batch_size,
        num_classes=images.num_classes,
    )
    if level == LOWERED:
        step = AheadStep(0, flops=lowered_flops(lower_ahead(spec, found, images)))
    else:
        step = compile_ahead(spec, found, images, level)
    dtype = spec.config.encoder.dtype
    versions = ("jax", "libtpu" if found.chip.extra == "tpu" else "jax-cuda13-plugin")
    return vars(step) | {
        "config": config,
        "target": target,
        "level": level,
        "fields": fields,
        "dtype": dtype,
        "floor": max(floor_seconds(step, found, dtype)),
        "devices": found.mesh.devices.size,
        "images": images.count * spec.config.train.num_epochs,
        "batch_size": data.batch_size,
        "summed": sum(size for _, size in step.exchanges.values()),
        "date": datetime.date.today().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in versions},
    }


def _not_here() -> ExperimentData:
    """Stands for images that are not read: their published sizes are used."""
    raise FileNotFoundError("the images are not read")


def read(file: pathlib.Path) -> dict[tuple, dict]:
    """Returns the rows of a file, by config, target, level and fields."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {key_of(row): row for row in map(json.loads, lines)}


def key_of(row: dict[str, Any]) -> tuple:
    """Returns what identifies a row."""
    fields = " ".join(f"{name}={x}" for name, x in sorted(row["fields"].items()))
    return row["config"], row["target"], row["level"], fields


def page(rows: dict[tuple, dict]) -> Iterator[str]:
    """Yields the lines of a table of rows.

    >>> row = {"config": "c", "target": "t", "level": "O0", "fields": {}, "flops": 2e12}
    >>> row |= {"dtype": "float32", "exchanges": {"all-reduce": [3, 2e6]}}
    >>> list(page({("c",): row}))[-1]
    '| c | t, O0 | float32 | - | - | 2 | - | - | - | - | - | 3 all-reduce 2 MB |'
    """
    titles = ["config", "target, level", "dtype", *(name for name, *_ in COLUMNS)]
    yield " | ".join(["", *titles, "exchanges", ""]).strip()
    yield "|---" * (len(titles) + 1) + "|"
    for _, row in sorted(rows.items()):
        name = " ".join([row["config"], *key_of(row)[3].split()])
        cells = [name, f"{row['target']}, {row['level']}", row.get("dtype", "-")]
        for _, key, unit, form in COLUMNS:
            value = row.get(key)
            cells.append(f"{value / unit:{form}}" if value else "-")
        found = row.get("exchanges", {})
        parts = [f"{n} {kind} {size / 1e6:.3g} MB" for kind, (n, size) in found.items()]
        cells.append(row.get("refused", "") or ", ".join(parts) or "-")
        yield " | ".join(["", *cells, ""]).strip()


def hosts(rows: dict[tuple, dict]) -> Iterator[str]:
    """Yields the lines of a table of the images that hosts must read.

    Its rows are the steps of configs whose images are decoded while training. All
    devices of a target take a step in the floor of its time.
    """
    titles = (
        *("config", "target, level", "floor, ms", "images/s", "GB/s to the devices"),
        *("canvas", "cores: files", "cores: pixels", "cores: pixels on 256 px"),
    )
    yield " | ".join(["", *titles, ""]).strip()
    yield "|---" * len(titles) + "|"
    for _, row in sorted(rows.items()):
        data = parse(configs.load(row["config"], row["fields"]).to_dict()).data
        if not row["config"].startswith(("imagenet100", "coco")):
            continue
        if not row.get("floor"):  # the step does not fit, or the compiler failed
            continue
        rate, side = data.batch_size / row["floor"], data.canvas
        transferred = rate * data.num_bytes((side, side)) / 1e9
        sources = (("files", side), ("pixels", side), ("pixels", 256))
        cores = [f"{rate / READ[kind][canvas]:.1f}" for kind, canvas in sources]
        cells = [row["config"], f"{row['target']}, {row['level']}"]
        cells += [f"{1e3 * row['floor']:.3g}", f"{rate:,.0f}", f"{transferred:.3g}"]
        yield " | ".join(["", *cells, str(side), *cores, ""]).strip()


def runs(rows: dict[tuple, dict]) -> Iterator[str]:
    """Yields the lines of a table of the operations of whole runs, at least so long.

    >>> row = {"config": "c", "target": "h100", "level": "lowered", "fields": {}}
    >>> row |= {"flops": 2e12, "floor": 0.036, "devices": 1}
    >>> list(runs({("c",): row | {"images": 1e6, "batch_size": 100}}))[-1]
    '| c | h100, lowered | 20.0 | 1.0 | 0.020 | 0.1 |'
    """
    titles = ("config", "target, level", "GFLOP per image", "million images", "EFLOP")
    yield " | ".join(["", *titles, "hours, at least", ""]).strip()
    yield "|---" * (len(titles) + 1) + "|"
    for _, row in sorted(rows.items()):
        if not row.get("flops"):  # the step does not fit, or the compiler failed
            continue
        flops = row["flops"] * row["devices"] / row["batch_size"]  # per image
        hours = row["images"] / row["batch_size"] * row["floor"] / 3600
        cells = [row["config"], f"{row['target']}, {row['level']}"]
        cells += [f"{flops / 1e9:.1f}", f"{row['images'] / 1e6:.1f}"]
        cells += [f"{flops * row['images'] / 1e18:.3f}", f"{hours:.2g}"]
        yield " | ".join(["", *cells, ""]).strip()


def differences(old: dict[tuple, dict], new: dict[tuple, dict]) -> Iterator[str]:
    """Yields a line for each figure that differs by more than 1 %.

    >>> key = ("moco", "v5e", "O0", "")
    >>> list(differences({key: {"flops": 1e9}}, {key: {"flops": 2e9}}))
    ['moco v5e O0: flops 1e+09 -> 2e+09 (+100.0 %)']
    """
    for key in sorted(old.keys() | new.keys()):
        name = " ".join(filter(None, key))
        if key not in old or key not in new:
            yield f"{name}: only in the {'new' if key in new else 'old'} file"
            continue
        for figure in COMPARED:
            a, b = old[key].get(figure) or 0, new[key].get(figure) or 0
            if abs(b - a) > 0.01 * abs(a):
                change = f"{b / a - 1:+.1%}".replace("%", " %") if a else "new"
                yield f"{name}: {figure} {a:.4g} -> {b:.4g} ({change})"


TABLES = {"page": page, "hosts": hosts, "runs": runs}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--configs", default=",".join(published()))
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--level", choices=(*LEVELS, LOWERED), default="O0")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    for table in TABLES:
        parser.add_argument(f"--{table}", action="store_true")
    parser.add_argument("--compare", type=pathlib.Path)
    flags = parser.parse_args(arguments)
    rows = read(flags.out)
    printed = [make(rows) for name, make in TABLES.items() if getattr(flags, name)]
    if flags.compare:
        printed.append(differences(read(flags.compare), rows))
    if printed:
        print(*itertools.chain(*printed), sep="\n")
        return
    fields = dict(each.split("=", 1) for each in flags.set)
    for config in flags.configs.split(","):
        for target in flags.targets.split(","):
            asked = {"config": config, "target": target, "level": flags.level}
            if key_of(asked | {"fields": fields}) in rows:
                continue
            try:
                row = compiled(config, target, flags.level, fields)
            except CompilerError as error:
                row = asked | {"fields": fields, "refused": str(error)}
            with flags.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
