"""Sends SIGTERM at awkward moments, times the end, and starts the same command again.

    python -m benchmarks.told_to_stop OUT [MOMENT ...]

Moments: `compile` of the first step, by an empty cache; `evaluation`, of 20,000 images;
`workers`, with the signal to the whole process group while two processes decode; and of
two processes that train together `first`, `second` or `both`. Prints a row each; exit
code 1 where an end took more than 10 s, left a process behind, or did not resume.
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

MOST = 10.0  # seconds
CONFIG = "cifar10_moco.py:logo"
QUICK = processes.FIELDS | {
    "train.num_steps": 10**6,
    "train.checkpoint_every_steps": 5,
    "monitor.knn_every_steps": 0,
}
SLOW_TO_COMPILE = QUICK | {"encoder.backbone": "resnet50"}
SLOW_TO_EVALUATE = QUICK | {"monitor.knn_every_steps": 5}
DECODED = QUICK | {"data.loader": "streamed", "data.workers": 2}


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a signal comes, and what is expected of it.

    Attributes:
        fields: of the config.
        count: processes that train.
        told: which of them get the signal.
        comes: whether a folder's run is in that moment.
        codes: exit codes of the processes told.
        after: seconds to wait once it is.
        images: of the training set.
        resumes: whether there is a step to go on from.
    """

    fields: dict
    comes: Callable[[pathlib.Path], bool]
    codes: tuple[int, ...] = (0,)
    count: int = 1
    told: tuple[int, ...] = (0,)
    after: float = 0.5
    images: int = 96
    resumes: bool = True


def has_trained(folder: pathlib.Path) -> bool:
    """Whether a step later than a checkpoint is on record."""
    return 0 < newest(folder) < kill_soak.last_step(folder)


def newest(folder: pathlib.Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def evaluates(folder: pathlib.Path) -> bool:
    """Whether a state is on disk and its evaluation is not."""
    step = newest(folder)
    return step > 0 and not kill_soak.is_evaluated(step, folder)


def compiles(folder: pathlib.Path) -> bool:
    """Whether the run has opened its metrics: what follows is the first step."""
    return (folder / "metrics.jsonl").exists()


KILLED = (-signal.SIGTERM,)
MOMENTS = {
    "compile": Moment(SLOW_TO_COMPILE, compiles, after=5.0, resumes=False),
    "evaluation": Moment(SLOW_TO_EVALUATE, evaluates, after=1.0, images=20_000),
    "workers": Moment(DECODED, has_trained),
    "first": Moment(QUICK, has_trained, KILLED, count=2, told=(0,)),
    "second": Moment(QUICK, has_trained, KILLED, count=2, told=(1,)),
    "both": Moment(QUICK, has_trained, KILLED, count=2, told=(0, 1)),
}


def main() -> None:
    """Signals in each moment asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("moments", nargs="*", default=list(MOMENTS))
    options = parser.parse_args()
    sound = [trial(name, options.out / name) for name in options.moments]
    sys.exit(0 if all(sound) else 1)


def trial(name: str, out: pathlib.Path) -> bool:
    """Signals in one moment, prints a row; returns whether all was as it should be."""
    moment = MOMENTS[name]
    processes.write_data(out, moment.images)
    started = begin(moment, out)
    try:
        seconds, codes, errors, left = told(moment, out, started)
        again = resumed(moment, out) if moment.resumes else "-"
    finally:
        for process in started:
            process.kill()
    print(f"{name:11s} {seconds:5.1f} s  exit {codes}  left behind {left}  {again}")
    print("".join(f"    {error}\n" for error in errors), end="", flush=True)
    expected = [code for i, code in enumerate(codes) if i in moment.told]
    sound = seconds <= MOST and not left and set(expected) <= set(moment.codes)
    return sound and again is not None


def begin(moment: Moment, out: pathlib.Path) -> list[subprocess.Popen]:
    """The command of a moment, its compiled code in a cache of its own."""
    folders = [out / "run", *(out / f"run-{i}" for i in range(1, moment.count))]
    fields = moment.fields | {"data.path": str(out)}
    cache = {"JAX_COMPILATION_CACHE_DIR": str(out / "cache")}
    return processes.start(CONFIG, fields, folders, cache)


def told(moment: Moment, out: pathlib.Path, started: Sequence[subprocess.Popen]):
    """Waits for the moment, signals; returns seconds, codes, last lines, the rest."""
    kill_soak.wait(lambda: moment.comes(out / "run"), started[0])
    time.sleep(moment.after)
    since = time.perf_counter()
    for i in moment.told:
        (os.killpg if moment.count == 1 else os.kill)(started[i].pid, signal.SIGTERM)
    errors = [process.communicate(timeout=300)[1] for process in started]
    seconds = time.perf_counter() - since
    last = [(error.strip().splitlines() or ["nothing said"])[-1] for error in errors]
    time.sleep(2.0)  # the resource tracker of multiprocessing ends last
    left = sum(map(alive, started))
    return seconds, [process.returncode for process in started], last, left


def alive(process: subprocess.Popen) -> bool:
    """Whether anything of an ended process's group is still there."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def resumed(moment: Moment, out: pathlib.Path) -> str | None:
    """Starts the command again; the step it goes on from, once it has trained on."""
    before = kill_soak.last_step(out / "run")
    started = begin(moment, out)
    try:
        kill_soak.wait(lambda: newest(out / "run") > before, started[0])
    finally:
        for process in started:
            process.kill()
    errors = [process.communicate()[1] for process in started]
    said = [line for line in errors[0].splitlines() if "resumed from step" in line]
    return said[0].strip() if said else None


if __name__ == "__main__":
    main()
