"""Writes a data set for TFDS, without TensorFlow.

    python -m logo_jax.prepare cifar10 [--data_dir=DIR] [--from_arrays=DIR]

Exit codes: 0 prepared, now or before; 2 bad input, told in one line on stderr.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from logo_jax import command
from logo_jax.data import tfds_source
from logo_jax.data.builders import cifar10


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse_args(arguments)
    with command.input_errors():
        print(prepare(options.data_dir, options.from_arrays))


def prepare(data_dir: str = "", arrays_dir: str = "") -> str:
    """Prepares CIFAR-10 unless it is prepared already; returns what was done.

    Args:
        data_dir: folder of prepared data sets; TFDS's default if empty.
        arrays_dir: folder of `train.npz` and `test.npz`; if empty, the archive placed
            in `<data_dir>/downloads/manual`, or else downloaded, is read.

    Raises:
        FileNotFoundError: if there is nothing to prepare it from.
        ValueError: if that is not CIFAR-10, or it is prepared in a format that cannot
            be read.
    """
    folder = tfds_source.directory(data_dir)
    written = cifar10.location(folder)
    if written.exists():
        tfds_source.require_readable(tfds.builder_from_directory(written))
        return f"cifar10 is already prepared in {written}"
    print(f"preparing cifar10 in {written}", flush=True)
    if arrays_dir:
        cifar10.from_arrays(folder, Path(arrays_dir))
    else:
        cifar10.from_archive(folder)
    return f"wrote cifar10 to {written}"


def _parser() -> argparse.ArgumentParser:
    parser = command.OneLineParser(
        prog="python -m logo_jax.prepare", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dataset", choices=["cifar10"])
    parser.add_argument(
        "--data_dir",
        default="",
        help="where to write; default $TFDS_DATA_DIR, else ~/tensorflow_datasets",
    )
    parser.add_argument(
        "--from_arrays",
        default="",
        metavar="DIR",
        help="folder of train.npz and test.npz with uint8 'images' and 'labels'",
    )
    return parser


if __name__ == "__main__":
    main()
