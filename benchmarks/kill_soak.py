"""Kills a tiny run with SIGKILL at random times and compares it with an intact run.

    python -m benchmarks.kill_soak OUT --kills=20 --seed=0

The same command is started again after each kill, and finally runs to its end. The
final state and the metrics must be bit-equal to those of a run that was never killed.
Each kill comes a random time after the files of the run show that the process is
starting, in a step, in a save or in an evaluation.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

MEASURED = (
    "images_per_second",
    "data_wait_percent",
)  # times, which differ between runs
MOMENTS = {"step": 0.05, "save": 0.03, "evaluation": 0.03, "start": 10.0}  # seconds
FIELDS = {
    "data.source": "npz",
    "data.batch_size": 8,
    "crops.global_crops": "(2,8,(0.4,1.0))",
    "encoder.backbone": "resnet10",
    "encoder.stem": "imagenet",
    "encoder.width": 4,
    "encoder.head_hidden": 8,
    "encoder.embedding_dim": 8,
    "method.predictor_hidden": 4,
    "train.log_every_steps": 1,
    "train.checkpoint_every_steps": 5,
    "monitor.knn": "((3,0.1),)",
    "monitor.knn_every_steps": 15,
}


def main() -> None:
    """Trains with and without kills; prints the moments of the kills, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=900)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    write_data(options.out)
    whole, killed = options.out / "whole", options.out / "killed"
    subprocess.run(command(whole, options.out, options.steps), check=True)
    errors = options.out / "killed.stderr"
    with errors.open("w") as stderr:
        for i in range(options.kills):
            moment = rng.choice(list(MOMENTS))
            line = command(killed, options.out, options.steps)
            found = killed_at(moment, line, killed, rng, stderr)
            print(f"kill {i} of seed {options.seed}: {moment}; {found}", flush=True)
        line = command(killed, options.out, options.steps)
        subprocess.run(line, check=True, stderr=stderr)
    sys.exit(0 if is_intact(killed, whole, errors) else 1)


def is_intact(killed: pathlib.Path, whole: pathlib.Path, errors: pathlib.Path) -> bool:
    """Prints and returns whether a killed run ended as an intact one, undamaged.

    Args:
        killed: folder of the killed run.
        whole: folder of the intact run.
        errors: what the killed run printed on stderr.
    """
    damaged = errors.read_text().count("is damaged")
    same_state = final_state(killed) == final_state(whole)
    same_metrics = metrics(killed) == metrics(whole)
    print("checkpoints reported as damaged:", damaged)
    print("final state bit-equal:", same_state)
    print("metrics equal:", same_metrics, len(metrics(whole)))
    return same_state and same_metrics and not damaged


def write_data(folder: pathlib.Path) -> None:
    """Writes random images of three classes to train.npz and test.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 10)):
        images = rng.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(count) % 3)


def command(workdir: pathlib.Path, data: pathlib.Path, steps: int) -> list[str]:
    """Returns the command line of a tiny run."""
    fields = FIELDS | {"data.path": data, "train.num_steps": steps}
    line = [sys.executable, "-m", "logo_jax.main", f"--workdir={workdir}"]
    line += ["--config=configs/cifar10_simsiam.py:baseline"]
    return line + [f"--config.{name}={value}" for name, value in fields.items()]


def killed_at(
    moment: str, line: list[str], workdir: pathlib.Path, rng: random.Random, stderr
) -> str:
    """Starts a command and kills it at a moment; returns the interrupted operations."""
    before = inode(workdir)
    process = subprocess.Popen(line, stderr=stderr, stdout=stderr)
    if moment != "start":
        wait(lambda: inode(workdir) != before, process)
        first = last_step(workdir) + rng.randint(1, 20)
        wait(lambda: last_step(workdir) >= first, process)
        wait(lambda: is_in(moment, workdir), process)
    time.sleep(rng.uniform(0, MOMENTS[moment]))
    process.kill()
    if process.wait() == 0:
        raise RuntimeError("the run ended before it was killed; increase --steps")
    return ", ".join(hits(workdir)) or "none"


def wait(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits until `happened` returns True.

    Raises:
        RuntimeError: if the process ends first.
    """
    while not happened():
        if process.poll() is not None:
            raise RuntimeError(
                f"the run ended by itself, with exit code {process.returncode}"
            )
        time.sleep(0.0005)


def is_in(moment: str, workdir: pathlib.Path) -> bool:
    """Returns whether the files of a run show that it is in a moment."""
    return moment == "step" or moment in hits(workdir)


def hits(workdir: pathlib.Path) -> Iterator[str]:
    """Yields the unfinished operations, according to the files of a run."""
    try:
        names = os.listdir(workdir / "checkpoints")
    except FileNotFoundError:
        return
    if any("tmp" in name for name in names):
        yield "save"
    if "trash" in names:
        yield "deletion"
    newest = max((int(name) for name in names if name.isdigit()), default=0)
    pending = newest and newest % FIELDS["monitor.knn_every_steps"] == 0
    if pending and not is_evaluated(newest, workdir):
        yield "evaluation"


def is_evaluated(step: int, workdir: pathlib.Path) -> bool:
    """Returns whether metrics.jsonl has an evaluation of a step."""
    return any(row["step"] == step and "loss" not in row for row in whole_rows(workdir))


def last_step(workdir: pathlib.Path) -> int:
    """Returns the last step in metrics.jsonl."""
    return max((row["step"] for row in whole_rows(workdir)), default=0)


def whole_rows(workdir: pathlib.Path) -> list[dict]:
    """Returns the rows of metrics.jsonl, without one that is still being written."""
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def inode(workdir: pathlib.Path) -> int:
    """Returns a number that changes when a process opens the metrics of its run."""
    file = workdir / "metrics.jsonl"
    return file.stat().st_ino if file.exists() else 0


def metrics(workdir: pathlib.Path) -> list[dict]:
    """Returns all rows of a run, without measured times."""
    return [
        {name: value for name, value in row.items() if name not in MEASURED}
        for row in whole_rows(workdir)
    ]


def final_state(workdir: pathlib.Path) -> tuple[int, str]:
    """Returns the newest checkpoint's step, and dtype, shape and crc32 of each leaf."""
    folder = workdir / "checkpoints"
    step = max(int(path.name) for path in folder.iterdir())
    return step, (folder / str(step) / "state" / "manifest.json").read_text()


if __name__ == "__main__":
    main()
