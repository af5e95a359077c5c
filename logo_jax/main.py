"""Trains the experiment that a config describes; the same command resumes a run.

    python -m logo_jax.main --config=configs/cifar10_simsiam.py

The run is written to runs/<config>, or runs/<config>_<variant>, unless --workdir names
another folder. CIFAR-10, CIFAR-100, STL-10, MIT-67 and FGVC-Aircraft are downloaded and
prepared first if they are missing.

Exit codes: 0 if the run is complete, or was stopped by SIGTERM or --time_limit and can
be resumed; 1 if a collapse has ended the run (`monitor.health`), if its loss is not
finite, or for an error in the program; 2 for bad input, corrupt data or a full disk,
which is reported in one line on stderr; 130 if the run was stopped by Ctrl-C and can be
resumed.
"""

import contextlib
import os
import sys
import time
from collections.abc import Sequence

from logo_jax import _cli
from logo_jax.parallel import processes
from logo_jax.runs.training import InputError, default_workdir, open_run
from logo_jax.training.collapse import CollapseError
from logo_jax.training.preemption import PreemptionHandler


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the run of a command line; first joins its cluster's processes, if any."""
    began = time.monotonic()
    options = _parser().parse(arguments)
    folder = options.workdir or default_workdir(options.config)
    with contextlib.ExitStack() as group:
        with _cli.input_errors():
            if options.start_from:
                options.fields["train.start_from"] = str(options.start_from)
            config = _cli.load_config(options).to_dict()
            _cli.keep_compiled_code()
            group.enter_context(
                processes.join_cluster(
                    os.environ,
                    quiet=options.quiet,
                    coordinator=options.coordinator,
                    num_processes=options.num_processes,
                    process_id=options.process_id,
                )
            )
        peers = None if processes.is_alone() else processes.Peers()
        left = options.time_limit and began + options.time_limit - time.monotonic()
        stop = PreemptionHandler(time_limit=left, peers=peers)
        group.enter_context(stop)
        try:
            with (
                _cli.input_errors((InputError,)),
                open_run(config, folder, quiet=options.quiet) as run,
            ):
                run.train(stop)
        except (CollapseError, FloatingPointError) as error:
            print("error:", " ".join(str(error).split()), file=sys.stderr)
            sys.exit(1)
    if stop.requested():
        stop.leave()


def _parser() -> _cli.Parser:
    parser = _cli.Parser("main", __doc__, has_fields=True)
    parser.add_config("the experiment to train", required=True)
    parser.add_workdir(
        "folder of the run, created if missing; default runs/<config>[_<variant>]",
        required=False,
    )
    parser.add_argument(
        "--from",
        dest="start_from",
        metavar="RUN",
        type=_cli.path,
        help="start a new run at the newest state of another run, with a schedule of "
        "its own; the same as --config.train.start_from=RUN",
    )
    parser.add_argument(
        "--time_limit",
        metavar="TIME",
        type=_cli.duration,
        help="time after which the run saves its state and ends with exit code 0, as "
        "after SIGTERM, such as 3h50m, 30m or 1h30m20s; default: none",
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors")
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0; needed only if the cluster is not detected",
    )
    parser.add_argument(
        "--num_processes",
        metavar="N",
        type=int,
        help="number of processes; 1: train alone, even if a cluster is detected",
    )
    parser.add_argument(
        "--process_id", metavar="I", type=int, help="index of this process, from 0"
    )
    return parser


if __name__ == "__main__":
    _cli.run(main)
