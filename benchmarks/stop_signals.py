"""Sends SIGTERM at chosen moments, times how long runs take to end, resumes them.

    python -m benchmarks.stop_signals OUT [MOMENT ...]

Moments: `compile`, the compilation of the first step, with an empty cache;
`evaluation`, an evaluation of 20,000 images; `workers`, a step while two worker
processes decode, with the signal sent to the whole process group; `first`, `second` and
`both`, a step of two processes that train together, with the signal sent to one or both
of them; `compile2` and `evaluation2`, as above with two processes, of which the second
gets the signal; `workers2`, as above with two processes, whose groups both get it;
`first4`, `last4` and `all4`, a step of four processes; `save4` and `save_all4`, a save
of four processes, with the signal sent to the last or to all of them. Prints a row for
each; exit code 1 if a run took more than 10 s to end, left a process behind, or did not
resume.
"""

import argparse
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks import kill_soak, processes

MAX_SECONDS = 10.0
CONFIG = "cifar10_moco.py:logo"
QUICK = processes.FIELDS | {
    "train.num_steps": 10**6,
    "train.checkpoint_every_steps": 5,
    "monitor.knn_every_steps": 0,
}
SLOW_TO_COMPILE = QUICK | {"encoder.backbone": "resnet50"}
SLOW_TO_EVALUATE = QUICK | {"monitor.knn_every_steps": 5}
DECODED = QUICK | {"data.loader": "streaming", "data.workers": 2}


@dataclasses.dataclass(frozen=True)
class Moment:
    """Moment at which a signal is sent, and the expected effect.

    Attributes:
        fields: fields of the config.
        has_come: returns whether the run in a folder has reached the moment.
        count: number of processes that train; all must end with exit code 0.
        targets: indices of the processes that get the signal.
        group: whether the whole process groups of the targets get it.
        after: seconds to wait after `has_come` returns True.
        images: number of training images.
        resumes: whether there is a saved step to resume from.
    """

    fields: dict
    has_come: Callable[[pathlib.Path], bool]
    count: int = 1
    targets: tuple[int, ...] = (0,)
    group: bool = False
    after: float = 0.5
    images: int = 96
    resumes: bool = True


def has_trained(folder: pathlib.Path) -> bool:
    """Returns whether a step after the newest checkpoint is in metrics.jsonl."""
    return 0 < newest(folder) < kill_soak.last_step(folder)


def newest(folder: pathlib.Path) -> int:
    """Returns the step of the newest checkpoint, or 0 if there is none."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def evaluates(folder: pathlib.Path) -> bool:
    """Returns whether the newest checkpoint is on disk and its evaluation is not."""
    step = newest(folder)
    return step > 0 and not kill_soak.is_evaluated(step, folder)


def saves(folder: pathlib.Path) -> bool:
    """Returns whether a checkpoint, but not the first, is being written."""
    return newest(folder) > 0 and kill_soak.is_in("save", folder)


def compiles(folder: pathlib.Path) -> bool:
    """Returns whether the run has opened its metrics, just before the first step."""
    return (folder / "metrics.jsonl").exists()


MOMENTS = {
    "compile": Moment(SLOW_TO_COMPILE, compiles, after=5.0, resumes=False),
    "evaluation": Moment(SLOW_TO_EVALUATE, evaluates, after=1.0, images=20_000),
    "workers": Moment(DECODED, has_trained, group=True),
    "first": Moment(QUICK, has_trained, count=2, targets=(0,)),
    "second": Moment(QUICK, has_trained, count=2, targets=(1,)),
    "both": Moment(QUICK, has_trained, count=2, targets=(0, 1)),
    "compile2": Moment(
        SLOW_TO_COMPILE, compiles, count=2, targets=(1,), after=5.0, resumes=False
    ),
    "evaluation2": Moment(
        SLOW_TO_EVALUATE, evaluates, count=2, targets=(1,), after=1.0, images=20_000
    ),
    "workers2": Moment(DECODED, has_trained, count=2, targets=(0, 1), group=True),
    "first4": Moment(QUICK, has_trained, count=4, targets=(0,)),
    "last4": Moment(QUICK, has_trained, count=4, targets=(3,)),
    "all4": Moment(QUICK, has_trained, count=4, targets=(0, 1, 2, 3)),
    "save4": Moment(QUICK, saves, count=4, targets=(3,), after=0.0),
    "save_all4": Moment(QUICK, saves, count=4, targets=(0, 1, 2, 3), after=0.0),
}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("moments", nargs="*", default=list(MOMENTS))
    options = parser.parse_args()
    passed = [trial(name, options.out / name) for name in options.moments]
    sys.exit(0 if all(passed) else 1)


def trial(name: str, out: pathlib.Path) -> bool:
    """Sends a signal at one moment and prints a row; returns whether the run passed."""
    moment = MOMENTS[name]
    processes.write_data(out, moment.images)
    started = begin(moment, out)
    try:
        seconds, codes, errors, left = signaled(moment, out, started)
        again = resumed(moment, out) if moment.resumes else "-"
    finally:
        for process in started:
            process.kill()
    print(f"{name:11s} {seconds:5.1f} s  exit {codes}  left behind {left}  {again}")
    print("".join(f"    {error}\n" for error in errors), end="", flush=True)
    passed = seconds <= MAX_SECONDS and not left and not any(codes)
    return passed and again is not None


def begin(moment: Moment, out: pathlib.Path) -> list[subprocess.Popen]:
    """Starts the processes of a moment, with a compilation cache of their own."""
    folders = [out / "run", *(out / f"run-{i}" for i in range(1, moment.count))]
    fields = moment.fields | {"data.path": str(out)}
    cache = {"JAX_COMPILATION_CACHE_DIR": str(out / "cache")}
    return processes.start(CONFIG, fields, folders, cache)


def signaled(moment: Moment, out: pathlib.Path, started: Sequence[subprocess.Popen]):
    """Sends the signal; returns seconds, exit codes, last lines, processes left."""
    kill_soak.wait(lambda: moment.has_come(out / "run"), started[0])
    time.sleep(moment.after)
    since = time.perf_counter()
    for i in moment.targets:
        (os.killpg if moment.group else os.kill)(started[i].pid, signal.SIGTERM)
    errors = [process.communicate(timeout=300)[1] for process in started]
    seconds = time.perf_counter() - since
    last = [(error.strip().splitlines() or ["no output"])[-1] for error in errors]
    time.sleep(2.0)  # the resource tracker of multiprocessing ends last
    left = sum(map(alive, started))
    return seconds, [process.returncode for process in started], last, left


def alive(process: subprocess.Popen) -> bool:
    """Returns whether the group of an ended process still has processes."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def resumed(moment: Moment, out: pathlib.Path) -> str | None:
    """Starts the command again; returns its line about resuming, None without one."""
    before = kill_soak.last_step(out / "run")
    started = begin(moment, out)
    try:
        kill_soak.wait(lambda: newest(out / "run") > before, started[0])
    finally:
        for process in started:
            process.kill()
    errors = [process.communicate()[1] for process in started]
    found = [line for line in errors[0].splitlines() if "resumed from step" in line]
    return found[0].strip() if found else None


if __name__ == "__main__":
    main()
