"""Measures the seconds of imports and until the first step of the quickstart.

    python -m benchmarks.startup [--rounds=3] [--config=FILE] [-- FLAGS]

Imports are timed in new processes, alternately with `import jax`, which takes most of
the time of each. The training command is started with an empty compilation cache, then
`--rounds` times with the cache of the first start. The time ends when the loss of the
first step is on disk; the run is then stopped. FLAGS are passed to the command. Prints
a table and one JSON line.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax

MODULES = ("jax", "logo_jax.losses", "logo_jax.methods", "logo_jax.main")
TIMEOUT = 600.0  # seconds


def imported(module: str) -> float:
    """Returns the seconds of an import in a new process, without process startup."""
    code = (
        "import time; start = time.perf_counter(); "
        f"import {module}; print(time.perf_counter() - start)"
    )
    line = [sys.executable, "-c", code]
    return float(subprocess.run(line, check=True, capture_output=True).stdout)


def imports(rounds: int) -> dict[str, float]:
    """Returns median seconds of each module, after a first import to warm the disk."""
    found: dict[str, list[float]] = {module: [] for module in MODULES}
    for turn in range(rounds + 1):
        for module, seconds in found.items():
            value = imported(module)
            if turn:
                seconds.append(value)
    return {module: statistics.median(seconds) for module, seconds in found.items()}


def first_step(config: str, cache: pathlib.Path, flags: Sequence[str]) -> float:
    """Returns the seconds from the command to the first step's metrics on disk.

    Raises:
        RuntimeError: if the command ends before that, or takes longer than TIMEOUT.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "run"
        line = [sys.executable, "-m", "logo_jax.main", f"--config={config}"]
        line += [f"--workdir={folder}", "--config.train.log_every_steps=1", *flags]
        environ = os.environ | {"XDG_CACHE_HOME": str(cache)}
        start = time.perf_counter()
        run = subprocess.Popen(line, env=environ, stderr=subprocess.DEVNULL)
        try:
            while not has_trained(folder):
                if run.poll() is not None or time.perf_counter() - start > TIMEOUT:
                    raise RuntimeError(f"{' '.join(line)} did not finish a step")
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait()


def has_trained(folder: pathlib.Path) -> bool:
    """Returns whether a loss is in the run's metrics."""
    file = folder / "metrics.jsonl"
    return file.exists() and '"loss"' in file.read_text()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "flags", nargs="*", help="flags of the training command, after --"
    )
    flags = parser.parse_args(arguments)
    report = {"jax": jax.__version__, "imports": imports(flags.rounds)}
    for module, seconds in report["imports"].items():
        print(f"import {module:20s} {seconds:6.2f} s")
    with tempfile.TemporaryDirectory() as cache:
        starts = [
            first_step(flags.config, pathlib.Path(cache), flags.flags)
            for _ in range(flags.rounds + 1)
        ]
    report |= {"cold": starts[0], "warm": starts[1:]}
    warm = ", ".join(f"{seconds:.1f}" for seconds in starts[1:])
    print(
        f"first step: {starts[0]:.1f} s with an empty compilation cache; then {warm} s"
    )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
