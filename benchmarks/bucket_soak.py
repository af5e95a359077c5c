"""Kills a tiny run in a bucket in its saves and compares it with an intact run on disk.

    python -m benchmarks.bucket_soak OUT --scheme=gs --kills=20 --seed=0

The bucket is that of an emulator, in this process. The same command is started again
after each kill, and finally runs to its end. The final state and the metrics must be
bit-equal to those of a run on disk that was never killed. The runs have no lease
(config.train.lock=False), for which each start after a kill would wait 30 s.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import time

from benchmarks import kill_soak
from logo_jax.storage.paths import as_path
from tests.storage import emulators


def main() -> None:
    """Trains with and without kills; prints what the kills interrupted; compares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--scheme", choices=("gs", "s3"), default="gs")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kill_soak.write_data(options.out)
    whole = options.out / "whole"
    line = kill_soak.command(whole, options.out, options.steps)
    subprocess.run(line, check=True)
    with emulators.started():
        killed = as_path(f"{options.scheme}://{emulators.BUCKET}/killed")
        line = kill_soak.command(killed, options.out, options.steps)
        line.append("--config.train.lock=False")
        errors = options.out / "killed.stderr"
        with errors.open("w") as stderr:
            for i in range(options.kills):
                print(f"kill {i}: {killed_in_save(line, killed, rng, stderr)}")
            subprocess.run(line, check=True, stderr=stderr)
        intact = kill_soak.is_intact(killed, whole, errors)
    sys.exit(0 if intact else 1)


def killed_in_save(line: list[str], workdir, rng: random.Random, stderr) -> str:
    """Starts a command and kills it in a save; returns what that save had written."""
    before = unfinished(workdir)
    process = subprocess.Popen(line, stderr=stderr, stdout=stderr)
    kill_soak.wait(lambda: unfinished(workdir) - before, process)
    time.sleep(rng.uniform(0, 0.2))
    process.kill()
    process.wait()
    left = {path.rpartition("killed/checkpoints/")[2] for path in unfinished(workdir)}
    return ", ".join(sorted(left)) or "after the save"


def unfinished(workdir) -> set[str]:
    """Returns the objects of checkpoints that have no mark of a complete one."""
    try:
        folders = list((workdir / "checkpoints").iterdir())
        found = [x for x in folders if not (x / "commit_success.txt").is_file()]
        return {str(x) for path in found for x in path.iterdir()}
    except FileNotFoundError:  # not yet there, or removed in the meantime
        return set()


if __name__ == "__main__":
    main()
