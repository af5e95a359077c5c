"""Trains on a file system that becomes full, and again after it is enlarged.

    python -m benchmarks.full_disk OUT

Mounts a small tmpfs on OUT/small, which needs root. The training command must end with
one line and exit code 2, must keep its earlier checkpoints intact, and must resume
after the tmpfs is enlarged. Prints what happened; exit code 1 if it was anything else.
"""

import argparse
import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import kill_soak, processes

CONFIG = "cifar10_moco.py:logo"
FIELDS = processes.FIELDS | {"train.num_steps": 40, "train.checkpoint_every_steps": 1}
MIB = 1  # fits one checkpoint, but not the four that exist while one is saved
ROOMY_MIB = 64


def main() -> None:
    """Trains until the disk is full, enlarges it and resumes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=MIB)
    options = parser.parse_args()
    processes.write_data(options.out)
    folder = options.out / "small" / "run"
    with mounted(folder.parent, options.mib):
        full = trained(options.out, folder)
        kept = kill_soak.last_step(folder)
        mount(folder.parent, ROOMY_MIB, "remount,")
        roomy = trained(options.out, folder)
        steps = [row["step"] for row in kill_soak.metrics(folder) if "loss" in row]
    *_, last = full.stderr.strip().splitlines()
    print(f"full at step {kept}: exit {full.returncode}: {last}")
    resumed = [x for x in roomy.stderr.splitlines() if "resumed" in x or "damaged" in x]
    print(f"enlarged: exit {roomy.returncode}: {'; '.join(resumed)}")
    whole = steps == list(range(1, FIELDS["train.num_steps"] + 1))
    print("each step recorded exactly once:", whole)
    passed = (full.returncode, roomy.returncode) == (2, 0) and whole
    passed &= "No space left" in last and "Traceback" not in full.stderr
    sys.exit(0 if passed and len(resumed) == 1 else 1)


@contextlib.contextmanager
def mounted(folder: pathlib.Path, mib: int) -> Iterator[None]:
    """Mounts a tmpfs of a size in MiB on a folder, and unmounts it at the end."""
    folder.mkdir(parents=True)
    mount(folder, mib)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def mount(folder: pathlib.Path, mib: int, before: str = "") -> None:
    """Mounts a tmpfs of a size in MiB; with `remount,`, changes its size."""
    size = ["-o", f"{before}size={mib}m"]
    subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", folder], check=True)


def trained(out: pathlib.Path, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Runs the training command to its end."""
    (process,) = processes.start(CONFIG, FIELDS | {"data.path": str(out)}, [folder])
    _, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, "", errors)


if __name__ == "__main__":
    main()
