"""Trains the cells of a sweep that are missing, and tabulates what all of them reach.

    python -m logo_jax.sweep --sweep=configs/sweeps/stl10_crop_ratio.py --out=runs/ratio

Flags --config.FIELD=VALUE go to every run, over what the sweep says. Each run is a
`logo_jax.main` in a folder of its own, CELL_seed_SEED; its output is in that name's
.log. The same command again resumes what was interrupted, skips what is finished and
tries again what failed. Started twice at once, on two cores, devices or hosts that see
one OUT, the two share the runs, and each ends when all have. The table is printed, and
written as table.md and table.json; --results=PAGE.md puts it, with hours, machine,
commit and a figure, into that page too, in place of what was there of this sweep. Exit
codes: 0 all is finished, or stopped by SIGTERM; 1 a run failed; 2 bad input; 130
stopped by Ctrl-C.
"""

import argparse
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from logo_jax import _cli
from logo_jax.sweeps import markdown, spec, table
from logo_jax.sweeps.runs import Run, make_runs, missing_of, reached_by, records_of
from logo_jax.sweeps.spec import Sweep
from logo_jax.training import atomic, workdir
from logo_jax.training.logging.metric_writer import METRICS_FILE
from logo_jax.training.preemption import STOPPED
from logo_jax.training.workdir import MACHINE_FILE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing and prints the table; returns the exit code."""
    options = _parser().parse(arguments)
    flags = [f"--config.{name}={value}" for name, value in options.fields.items()]
    succeeded = True
    with _cli.input_errors():
        sweep = spec.read(options.sweep)
        if options.seeds is not None:
            sweep = replace(sweep, seeds=tuple(range(options.seeds)))
        runs = make_runs(sweep, options.out.absolute(), flags)
        options.out.mkdir(parents=True, exist_ok=True)
        if not options.table:
            succeeded = train_all(missing_of(runs), sweep.metrics)
        with workdir.lock_workdir(options.out / "claims" / "table", wait=True):
            records = records_of(runs, sweep.metrics)
            print(write_table(options.out, sweep, records))
            if options.results is not None:
                name = pathlib.Path(options.sweep).stem
                said = told(options, flags)
                markdown.write(options.results, name, sweep, records, said)
    return 0 if succeeded else 1


def train_all(runs: Sequence[Run], metrics: Sequence[str]) -> bool:
    """Trains what no other process does; returns whether none failed here.

    What another trains is waited for, and trained here where that one ends without it.
    """
    succeeded, others = True, []
    for i, run in enumerate(runs, 1):
        try:
            with workdir.lock_workdir(run.claim):
                succeeded &= train(run, metrics, f"[{i}/{len(runs)}]")
        except workdir.WorkdirInUseError:
            others.append(run)
    others = [run for run in others if not run.record.exists()]
    for i, run in enumerate(others, 1):
        say(f"waiting for another process to train {run.name}")
        with workdir.lock_workdir(run.claim, wait=True):
            succeeded &= train(run, metrics, f"[{i}/{len(others)}]")
    return succeeded


def train(run: Run, metrics: Sequence[str], which: str) -> bool:
    """Runs it to its end and records what it reached, or tells in one line why not."""
    if run.record.exists():  # by now, of another process
        return True
    say(f"{which} {run.name}")
    code_version = commit()
    with run.timed():
        code = call(run)
    said = run.log.read_text(errors="replace").strip().splitlines()
    reached = None if code else reached_by(run, metrics)
    if reached is None or any(line.startswith(STOPPED) for line in said):
        reason = said[-1] if said else f"not all of {metrics} in its {METRICS_FILE}"
        say(f"{run.name} is not finished (exit code {code}): {reason}; see {run.log}")
        return False
    record = {
        "arguments": run.arguments,
        "metrics": reached,
        "seconds": run.seconds,
        "commit": code_version,
        "machine": json.loads((run.folder / MACHINE_FILE).read_text()),
    }
    atomic.write_text(run.record, json.dumps(record, indent=2) + "\n")
    return True


def say(line: str) -> None:
    """To who waits at the terminal."""
    print(line, file=sys.stderr, flush=True)


def commit() -> str:
    """Of the code that runs, "-dirty" where files differ from it; "" outside git."""
    folder = pathlib.Path(__file__).parent
    line = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    if shutil.which("git") is None:
        return ""
    return subprocess.run(line, capture_output=True, text=True).stdout.strip()


def call(run: Run) -> int:
    """The run's exit code; a run that outlives this process's wish to wait is stopped.

    It saves then what it has learned, as it does where a person stops it.
    """
    line = [sys.executable, "-m", "logo_jax.main", "--quiet", *run.arguments]
    with run.log.open("w") as log:
        process = subprocess.Popen(
            [*line, f"--workdir={run.folder}"], stdout=log, stderr=log
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def write_table(out: pathlib.Path, sweep: Sweep, records: table.Records) -> str:
    """The table of the runs that are finished, which is written too, whole or not."""
    rows = table.rows(sweep, records)
    text = table.markdown(sweep, rows)
    atomic.write_text(out / "table.md", text + "\n")
    atomic.write_text(out / "table.json", json.dumps(rows, indent=2) + "\n")
    return text


def told(options: argparse.Namespace, flags: Sequence[str]) -> str:
    """The command, as a page can tell it: with the reader's folders for ours."""
    file = pathlib.Path(options.sweep)
    shown = f"DIR/{file.name}" if file.is_absolute() else options.sweep
    given = [f"--sweep={shown}", *(re.sub(r"=/.*", "=DIR", flag) for flag in flags)]
    if options.seeds is not None:
        given.append(f"--seeds={options.seeds}")
    return shlex.join(["python", "-m", "logo_jax.sweep", *given, "--out=OUT"])


def _parser() -> _cli.Parser:
    parser = _cli.Parser("sweep", __doc__, has_fields=True)
    parser.add_argument(
        "--sweep",
        metavar="NAME",
        required=True,
        help="what to train: a file, or a name in logo_jax's configs/",
    )
    parser.add_out("folder of the runs and the table; made if absent")
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        help="seeds of each cell, from 0; default the file's",
    )
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument(
        "--results",
        metavar="PAGE.md",
        type=_cli.path,
        help="a page to write the table into",
    )
    return parser


if __name__ == "__main__":
    # as Ctrl-C does, it unwinds, and so stops the run that is being waited for
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _cli.run(main)
