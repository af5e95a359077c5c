"""Trains the cells of a sweep that are missing, and tabulates what all of them reach.

python -m logo_jax.sweep --sweep=configs/sweeps/stl10_crop_ratio.py --out=runs/ratio

Flags --config.FIELD=VALUE go to every run, over what the sweep says. Each run is a
`logo_jax.main` in a folder of its own, CELL_seed_SEED; its output is in that name's
.log. The same command again resumes what was interrupted, skips what is finished and
tries again what failed. Started twice at once, on two cores, devices or hosts that see
one OUT, the two share the runs. The table is printed, and written as table.md and
table.json.
Exit codes: 0 all is finished, or stopped by SIGTERM; 1 a run failed; 2 bad input; 130
stopped by Ctrl-C.
"""

import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from logo_jax import command, workdir
from logo_jax.machine import MACHINE_FILE
from logo_jax.metrics import METRICS_FILE, read_rows, write_whole
from logo_jax.signals import STOPPED
from logo_jax.sweeps import description, table
from logo_jax.sweeps.description import Cell, Sweep


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
        cell: of the sweep.
        seed: of the run.
        out: the sweep's folder.
        flags: of every run.
    """

    cell: Cell
    seed: int
    out: pathlib.Path
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.cell.name}_seed_{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """What makes it this run: its command line, but for the folder."""
        return [*self.cell.flags(self.seed), *self.flags]

    @property
    def folder(self) -> pathlib.Path:
        """Of the run."""
        return self.out / self.name

    @property
    def record(self) -> pathlib.Path:
        """The file that is there once the run is finished."""
        return self.out / f"{self.name}.json"

    @property
    def claim(self) -> pathlib.Path:
        """The folder that is locked by the sweep that trains it."""
        return self.out / "claims" / self.name

    @property
    def log(self) -> pathlib.Path:
        """What it printed."""
        return self.out / f"{self.name}.log"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing and prints the table; returns the exit code."""
    parser = command.OneLineParser(
        prog="logo_jax.sweep", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--sweep", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seeds", type=int, help="so many, from 0; default the file's")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options, flags = parser.parse_known_args(argv)
    with command.input_errors():
        sweep = description.read(options.sweep)
        if options.seeds is not None:
            sweep = replace(sweep, seeds=tuple(range(options.seeds)))
        runs = runs_of(sweep, options.out.absolute(), flags)
        options.out.mkdir(parents=True, exist_ok=True)
        missing = [] if options.table else missing_of(runs)
    succeeded = [
        train(run, sweep.metrics, f"[{i}/{len(missing)}]")
        for i, run in enumerate(missing, 1)
        if not run.record.exists()  # by now, by another process
    ]
    with command.input_errors():
        print(write_table(options.out, sweep, runs))
    return 0 if all(succeeded) else 1


def runs_of(sweep: Sweep, out: pathlib.Path, flags: Sequence[str]) -> list[Run]:
    """All runs, seed by seed: all cells have one before any has two.

    Raises:
        ValueError: where a flag is none of a config's fields.
    """
    for flag in flags:
        if not flag.startswith("--config."):
            raise ValueError(f"{flag!r} is not a flag; see --help, configs/base.py")
    return [
        Run(cell, seed, out, tuple(flags))
        for seed in sweep.seeds
        for cell in sweep.cells
    ]


def missing_of(runs: Sequence[Run]) -> list[Run]:
    """Runs that have not finished.

    Raises:
        ValueError: where one has finished with other settings than these.
    """
    for run in runs:
        changed = run.record.exists() and changes(run)
        if changed:
            raise ValueError(
                f"{run.name} has finished with other settings ({' '.join(changed)}); "
                "give those, --table, or another --out"
            )
    return [run for run in runs if not run.record.exists()]


def changes(run: Run) -> list[str]:
    """Arguments that only the finished run has, or only this one."""
    before = json.loads(run.record.read_text())["arguments"]
    return sorted(set(before) ^ set(run.arguments))


def train(run: Run, metrics: Sequence[str], which: str) -> bool:
    """Runs it to its end and records what it reached, or tells in one line why not."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(workdir.locked(run.claim))
        except ValueError:
            say(f"{which} {run.name} is trained by another process")
            return True
        return train_here(run, metrics, which)


def train_here(run: Run, metrics: Sequence[str], which: str) -> bool:
    """As `train`; nobody else trains it."""
    say(f"{which} {run.name}")
    started = time.monotonic()
    code = call(run)
    said = run.log.read_text(errors="replace").strip().splitlines()
    reached = reached_by(run, metrics)
    if code or reached is None or any(line.startswith(STOPPED) for line in said):
        reason = said[-1] if said else f"not all of {metrics} in its {METRICS_FILE}"
        say(f"{run.name} is not finished (exit code {code}): {reason}; see {run.log}")
        return False
    record = {
        "arguments": run.arguments,
        "metrics": reached,
        "seconds": round(time.monotonic() - started, 1),  # of the start that ended it
        "commit": commit(),
        "machine": json.loads((run.folder / MACHINE_FILE).read_text()),
    }
    write_whole(run.record, json.dumps(record, indent=2) + "\n")
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


def reached_by(run: Run, metrics: Sequence[str]) -> dict[str, float] | None:
    """The run's last values of the metrics; None where it has not all of them."""
    lines = read_rows(run.folder / METRICS_FILE)
    found = {name: row[name] for row in lines for name in metrics if name in row}
    return found if len(found) == len(metrics) else None


def write_table(out: pathlib.Path, sweep: Sweep, runs: Sequence[Run]) -> str:
    """The table of the runs that are finished, which is written too, whole or not."""
    reached = {
        (run.cell.name, run.seed): json.loads(run.record.read_text())["metrics"]
        for run in runs
        if run.record.exists()
    }
    rows = table.rows(sweep, reached)
    text = table.markdown(sweep, rows)
    write_whole(out / "table.md", text + "\n")
    write_whole(out / "table.json", json.dumps(rows, indent=2) + "\n")
    return text


if __name__ == "__main__":
    # as Ctrl-C does, it unwinds, and so stops the run that is being waited for
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
