"""Prepares one of the LoGo paper's data sets for TFDS, to be read without TensorFlow.

    python -m logo_jax.prepare NAME [--data_dir=DIR]
    python -m logo_jax.prepare cifar10 --from_arrays=DIR
    python -m logo_jax.prepare imagenet100 --classes=FILE
    python -m logo_jax.prepare --list

After an interruption, the same command continues with the files that it had downloaded
completely. Exit codes: 0 if the data set is prepared, now or earlier; 2 for bad input,
which is reported in one line on stderr.
"""

from collections.abc import Sequence

from logo_jax import _cli
from logo_jax.data.builders.prepare import prepare, table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = _parser().parse(arguments)
    with _cli.input_errors():
        if options.list:
            print(table())
        else:
            print(
                prepare(
                    options.name, options.data_dir, options.from_arrays, options.classes
                )
            )


def _parser() -> _cli.Parser:
    parser = _cli.Parser("prepare", __doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "name", nargs="?", metavar="NAME", help="data set; --list prints all"
    )
    chosen.add_argument("--list", action="store_true", help="print all data sets")
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        default="",
        help="folder to write to; default $TFDS_DATA_DIR, else ~/tensorflow_datasets",
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
    return parser


if __name__ == "__main__":
    _cli.run(main)
