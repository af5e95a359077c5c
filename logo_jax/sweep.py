"""Trains the missing runs of a sweep, and tabulates the results of all runs.

    python -m logo_jax.sweep --sweep=configs/sweeps/stl10_crop_ratio.py --out=runs/ratio

Flags --config.FIELD=VALUE are passed to every run and override the sweep's values. Each
run is a `logo_jax.main` process with a folder of its own, CELL_seed_SEED; its output is
written to CELL_seed_SEED.log. The same command, run again, resumes interrupted runs,
skips finished ones and retries failed ones. Several processes of the command, on cores,
devices or hosts that share the folder OUT, divide the runs among them, and each process
ends when all runs have ended. The table is printed, and written to table.md and
table.json; --results=PAGE.md also writes it into that page, with hours, machine, commit
and a figure, and replaces the previous results of this sweep there.

Exit codes: 0 if all runs are finished, or if stopped by SIGTERM; 1 if a run failed; 2
for bad input; 130 if stopped by Ctrl-C.
"""

import argparse
import json
import os
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
from logo_jax.sweeps.runs import (
    Run,
    check_configs,
    curves_of,
    make_runs,
    missing_of,
    reached_by,
    records_of,
    require_same_settings,
)
from logo_jax.sweeps.spec import Sweep
from logo_jax.training import atomic, workdir
from logo_jax.training.logging.metric_writer import METRICS_FILE
from logo_jax.training.preemption import STOPPED
from logo_jax.training.workdir import MACHINE_FILE

# On a CPU, glibc takes the large arrays of each step as new pages from the system; of
# huge pages they need fewer (docs/performance.md). glibc reads this when a process
# starts.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse(arguments)
    flags = [f"--config.{name}={value}" for name, value in options.fields.items()]
    with _cli.input_errors():
        sweep = spec.read(options.sweep)
        if options.results is not None and not options.results.is_file():
            raise FileNotFoundError(
                f"--results={options.results} must be a Markdown page; create it"
            )
        if options.seeds is not None:
            sweep = replace(sweep, seeds=tuple(range(options.seeds)))
        if options.table and not options.out.is_dir():
            raise FileNotFoundError(
                f"--out={options.out} must be the folder of a sweep whose table is "
                "written; train the sweep first"
            )
        runs = make_runs(sweep, options.out.absolute(), flags)
        missing = [] if options.table else missing_of(runs)
        check_configs(missing)
        records_of(runs, sweep.metrics)  # an error now, not after the training
        lock = runs[0].config["train"]["lock"]
        options.out.mkdir(parents=True, exist_ok=True)
        succeeded = train_all(missing, sweep.metrics, lock=lock)
        table_claim = options.out / "claims" / "table"
        with workdir.lock_workdir(table_claim, wait=True, lock=lock):
            records = records_of(runs, sweep.metrics)
            print(write_table(options.out, sweep, records))
            if options.results is not None and (records or succeeded):
                # also of runs that another process has finished meanwhile
                require_same_settings(runs)
                name = pathlib.Path(options.sweep).stem
                command = shown_command(options, flags)
                markdown.write(options.results, name, sweep, records, command)
    return 0 if succeeded else 1


def train_all(runs: Sequence[Run], metrics: Sequence[str], *, lock: bool) -> bool:
    """Trains the runs that no other process trains; returns whether all succeeded.

    Runs that another process trains are waited for; if that process ends without
    finishing a run, the run is trained here. If `lock` is False, no other process may
    train these runs.
    """
    succeeded, others = True, []
    for i, run in enumerate(runs, 1):
        try:
            with workdir.lock_workdir(run.claim, lock=lock):
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
    """Trains a run and records its results; returns whether the run has finished.

    If it has not, prints the reason in one line.

    Args:
        run: the run to train, or to resume.
        metrics: names of the metrics that the run must have in metrics.jsonl.
        which: position of the run, such as "[1/6]", which is printed.
    """
    if run.record.exists():  # another process has finished it
        return True
    say(f"{which} {run.name}")
    code_version = commit()
    with run.timed():
        code = call(run)
    printed = run.log.read_text(errors="replace").strip().splitlines()
    reached = None if code else reached_by(run, metrics)
    is_stopped = any(line.startswith(STOPPED) for line in printed)
    if reached is None or is_stopped:
        reason = f"{METRICS_FILE} does not have all of {', '.join(metrics)}"
        if code or is_stopped:
            reason = printed[-1] if printed else "it printed nothing"
        say(f"{run.name} is not finished (exit code {code}): {reason}; see {run.log}")
        return False
    record = {
        "arguments": run.arguments,
        "metrics": reached,
        "curves": curves_of(run, metrics),
        "seconds": run.seconds,
        "commit": code_version,
        "machine": json.loads((run.folder / MACHINE_FILE).read_text()),
    }
    atomic.write_text(run.record, json.dumps(record, indent=2) + "\n")
    return True


def say(line: str) -> None:
    """Prints a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def commit() -> str:
    """Returns the commit of this code, with "-dirty" if files differ.

    It is "" without git, or if the code is in no repository. An environment with the
    installed package may be in a repository of something else.
    """
    file = pathlib.Path(__file__)
    git = ["git", "-C", str(file.parent)]
    if shutil.which("git") is None:
        return ""
    tracked = [*git, "ls-files", "--error-unmatch", file.name]
    if subprocess.run(tracked, capture_output=True).returncode:
        return ""
    line = [*git, "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(line, capture_output=True, text=True).stdout.strip()


def call(run: Run) -> int:
    """Starts a run, waits for its end and returns its exit code.

    If this process is interrupted, it stops the run with SIGTERM, upon which the run
    saves a checkpoint. The run's arrays are on huge pages, unless the environment has
    other settings of glibc.
    """
    line = [sys.executable, "-m", "logo_jax.main", "--quiet", *run.arguments]
    with run.log.open("w") as log:
        process = subprocess.Popen(
            [*line, f"--workdir={run.folder}"],
            stdout=log,
            stderr=log,
            env=HUGE_PAGES | os.environ,
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def write_table(out: pathlib.Path, sweep: Sweep, records: table.Records) -> str:
    """Writes the results of finished runs to table.md and table.json.

    Args:
        out: folder of the sweep.
        sweep: the sweep, with its cells.
        records: metrics and seconds of the finished runs, by (cell name, seed).

    Returns:
        The table as Markdown.
    """
    rows = table.rows(sweep, records)
    text = table.markdown(sweep, rows)
    atomic.write_text(out / "table.md", text + "\n")
    atomic.write_text(out / "table.json", json.dumps(rows, indent=2) + "\n")
    return text


def shown_command(options: argparse.Namespace, flags: Sequence[str]) -> str:
    """Returns the command for a results page; absolute paths are replaced by DIR."""
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
        help="the sweep: a file, or a name in logo_jax's configs/",
    )
    parser.add_out("folder of the runs and the table; created if absent", local=True)
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        help="number of seeds of each cell, from 0; default: the seeds of the file",
    )
    parser.add_argument(
        "--table", action="store_true", help="only make the table; train nothing"
    )
    parser.add_argument(
        "--results",
        metavar="PAGE.md",
        type=_cli.path,
        help="Markdown page to write the table into",
    )
    return parser


if __name__ == "__main__":
    # raises an exception, as Ctrl-C does, so that `call` stops the run it waits for
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _cli.run(main)
