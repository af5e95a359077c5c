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
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from logo_jax import _cli
from logo_jax.training import workdir
from logo_jax.visualization import run_report, similarity
from logo_jax.visualization.html_page import Section


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
        for run in options.workdirs:
            workdir.read_config(run)  # raises if it is not the folder of a run
        _cli.require_new(out, options.overwrite)
        run_report.write_report(
            options.workdirs,
            out,
            recipe=None if options.config is None else read_recipe(options),
            with_images=not options.no_images,
        )
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
        sections = [Section("Similarity", [about, *figures])]
        run_report.write_page(options.out, title, sections)
    for figure in figures:
        print(f"{figure.title}: {figure.alt}")
    print(f"wrote {options.out / 'index.html'}")


def read_recipe(options: argparse.Namespace) -> Mapping[str, Any]:
    """Loads the config of `--config`, in the form of a run's config.json.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file does not have the variant.
    """
    config = _cli.load_config(options).to_dict()
    return workdir.as_read(config)


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
