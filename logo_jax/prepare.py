"""Prepares one of the LoGo paper's data sets for TFDS, to be read without TensorFlow.

    python -m logo_jax.prepare NAME [--data_dir=DIR]
    python -m logo_jax.prepare cifar10 --from_arrays=DIR
    python -m logo_jax.prepare imagenet100 --classes=FILE
    python -m logo_jax.prepare --list
    python -m logo_jax.prepare IMAGES --canvas=N --out=DIR [--format=jpeg]

After an interruption, the same command continues with the files that it had downloaded
completely.

With --canvas, images that can be read already (a folder, a list, several divided by
commas, or the name of a data set that is prepared or can be downloaded) are reduced to
N pixels, as data.canvas=N reduces them, and written to DIR with their original sizes
and labels. A run that reads them decodes little: --config.data.source=canvases
--config.data.path=DIR. Flags --config.data.FIELD say how the images are read, as in
training.

Exit codes: 0 if the data set is prepared, now or earlier; 2 for bad input, which is
reported in one line on stderr.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from logo_jax import _cli, configs
from logo_jax.data.builders.prepare import prepare, table
from logo_jax.data.sources.canvases import FORMATS
from logo_jax.training import atomic


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = _parser()
    options = parser.parse(arguments)
    _require_together(parser, options)
    with _cli.input_errors():
        if options.list:
            print(table())
        elif options.canvas:
            print(reduce_images(options))
        else:
            print(
                prepare(
                    options.name, options.data_dir, options.from_arrays, options.classes
                )
            )


def reduce_images(options: argparse.Namespace) -> str:
    """Writes the images reduced to a canvas; returns what was written.

    Raises:
        FileNotFoundError: if the images, or the parent folder of `--out`, are missing.
        ValueError: if `--out` exists, or the images cannot be read.
        OSError: if a file cannot be read or written.
    """
    out: Path = options.out
    if out.exists():
        raise ValueError(f"{out} exists; remove it, or give another --out")
    _cli.require_new(out, overwrite=False)
    # imported late: they import JAX
    from logo_jax.data.builders.canvases import write_canvases
    from logo_jax.data.load import (
        load_images,
        locate_dataset,
        prepare_missing,
        require_images,
    )
    from logo_jax.experiment.config import parse

    require_images(options.name)
    found = {"canvas": options.canvas, "data_dir": options.data_dir}
    found |= locate_dataset(options.name)
    fields = {f"data.{name}": value for name, value in found.items()} | options.fields
    data = parse(configs.load("folder", fields).to_dict()).data
    if data.location.decoding.dtype:
        raise ValueError(
            "--canvas is for 8-bit colors; leave out --config.data.channels, dtype, "
            "value_range and reader"
        )
    prepare_missing(data.location)
    images = load_images(data.location)
    for note in images.notes:
        print(f"data: {note}", flush=True)
    limits = {"max_corrupt": data.max_corrupt, "threads": data.threads}
    with atomic.replace(out) as partial:
        counts = write_canvases(
            images, data.canvas, partial, format=options.format, **limits
        )
        num_bytes = sum(file.stat().st_size for file in partial.iterdir())
    written = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return (
        f"wrote images of at most {options.canvas}x{options.canvas} px to {out} "
        f"({written}; {num_bytes / 1e9:.3g} GB); to train on them: "
        f"--config.data.source=canvases --config.data.path={out}"
    )


def _require_together(parser: _cli.Parser, options: argparse.Namespace) -> None:
    """Stops with an error if flags are given that do not belong together."""
    if options.canvas is None:
        if options.out or options.format or options.fields:
            parser.error("--out, --format and --config.FIELD need --canvas=N")
        return
    if options.list or options.from_arrays or options.classes:
        parser.error("--canvas excludes --list, --from_arrays and --classes")
    if options.out is None:
        parser.error("--canvas needs --out=DIR, the folder to write to")
    if fields := [x for x in options.fields if not x.startswith("data.")]:
        parser.error(f"--config.{fields[0]} is no field of config.data")
    options.format = options.format or FORMATS[0]


def _parser() -> _cli.Parser:
    parser = _cli.Parser("prepare", __doc__, has_fields=True)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="data set; --list prints all; with --canvas also a folder or a list",
    )
    chosen.add_argument("--list", action="store_true", help="print all data sets")
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        default="",
        help="folder of prepared data sets; default $TFDS_DATA_DIR, else "
        "~/tensorflow_datasets",
    )
    parser.add_argument(
        "--from_arrays",
        metavar="DIR",
        default="",
        help="folder with train.npz and test.npz of uint8 'images' and 'labels'",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        default="",
        help="file of WordNet ids for imagenet100, one a line; default: the paper's",
    )
    parser.add_argument(
        "--canvas",
        metavar="N",
        type=_cli.at_least(1),
        help="write the images reduced to N pixels, such as 256, to --out",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="with --canvas: the pixels (uint8, default), or JPEGs of them, which are "
        "smaller and not exact",
    )
    parser.add_out("with --canvas: folder to write to", required=False, local=True)
    return parser


if __name__ == "__main__":
    _cli.run(main)
