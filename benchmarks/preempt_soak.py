"""Stops runs of several processes by SIGTERM at random moments and resumes them.

    python -m benchmarks.preempt_soak OUT --stops=20 --processes=2 --seed=0

The signal is sent to the first process, to the last one, or to all of them, in a step,
a save, an evaluation, or a random time after the start, as in the compilation. All
processes must end with exit code 0 and name the same step. The same command is
started again each time, and finally runs to its end. The final state and the metrics
must be bit-equal to those of a run that was never stopped. Prints a row per stop; exit
code 1 if anything differs. Signals before the handlers are installed, while Python
imports modules, are not sent.
"""

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import kill_soak, processes

CONFIG = "cifar10_simsiam.py:baseline"
FIELDS = kill_soak.FIELDS | {
    "batch_norm": "global",
    "encoder.backbone": "tests.backbones:TwoConvolutions",
    "train.checkpoint_every_steps": 20,
    "monitor.knn_every_steps": 30,
}
del FIELDS["encoder.stem"]
MOMENTS = ("step", "save", "evaluation", "start")
MAX_SECONDS = 10.0


class Stop(NamedTuple):
    """The end of the processes of a run after a signal.

    Attributes:
        seconds: from the signal to the end of the last process.
        codes: exit codes.
        lines: last lines on stderr.
    """

    seconds: float
    codes: list[int]
    lines: list[str]

    @property
    def passed(self) -> bool:
        """Whether all processes ended in time, with code 0 and the same step."""
        same = len(set(self.lines)) == 1 and self.lines[0].startswith("stopped by")
        return same and not any(self.codes) and self.seconds <= MAX_SECONDS


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=900)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kill_soak.write_data(options.out)
    whole, stopped = options.out / "whole", options.out / "stopped"
    passed = True
    for i in range(options.stops):
        moment = MOMENTS[i % len(MOMENTS)]
        targets = rng.choice([[0], [options.processes - 1], range(options.processes)])
        found = stop_at(moment, targets, begin(stopped, options), stopped, rng)
        print(
            f"{i:3d} {moment:11s} to {str(list(targets)):7s} {found.seconds:5.1f} s "
            f"exit {found.codes} {found.lines[0][:45]}",
            flush=True,
        )
        if not found.passed:
            print(*found.lines, sep="\n")
        passed &= found.passed
    for folder in (stopped, whole):
        for process in begin(folder, options):
            process.communicate()  # reads what it prints
            passed &= process.returncode == 0
    equal = kill_soak.final_state(stopped) == kill_soak.final_state(whole)
    rows = kill_soak.metrics(stopped), kill_soak.metrics(whole)
    print("final state bit-equal:", equal)
    print("metrics equal:", rows[0] == rows[1], len(rows[1]))
    sys.exit(0 if passed and equal and rows[0] == rows[1] else 1)


def begin(
    folder: pathlib.Path, options: argparse.Namespace
) -> list[subprocess.Popen[str]]:
    """Starts the processes of a run."""
    fields = FIELDS | {"data.path": options.out, "train.num_steps": options.steps}
    others = [folder.with_name(f"other{i}") for i in range(1, options.processes)]
    return processes.start(CONFIG, fields, [folder, *others])


def stop_at(
    moment: str,
    targets: list[int] | range,
    started: list[subprocess.Popen[str]],
    workdir: pathlib.Path,
    rng: random.Random,
) -> Stop:
    """Sends SIGTERM to some processes of a run at a moment, and waits for the end."""
    before = kill_soak.inode(workdir)
    kill_soak.wait(lambda: kill_soak.inode(workdir) != before, started[0])
    if moment == "start":
        time.sleep(rng.uniform(0, 3.0))
    else:
        first = kill_soak.last_step(workdir) + rng.randint(1, 20)
        kill_soak.wait(lambda: kill_soak.last_step(workdir) >= first, started[0])
        kill_soak.wait(lambda: kill_soak.is_in(moment, workdir), started[0])
    since = time.perf_counter()
    for i in targets:
        started[i].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=120)[1] for process in started]
    seconds = time.perf_counter() - since
    lines = [(error.strip().splitlines() or ["no output"])[-1] for error in errors]
    return Stop(seconds, [process.returncode for process in started], lines)


if __name__ == "__main__":
    main()
