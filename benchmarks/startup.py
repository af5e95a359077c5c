"""Seconds until something happens: an import, and the first step of the quickstart.

    python -m benchmarks.startup [--rounds=3] [--config=FILE] [-- FLAGS]

Imports are timed in processes of their own, in turns with `import jax`, which is most
of each. The command is started with an empty compile cache, then `--rounds` times with
what that start left in it; the first step counts once its loss is on disk, and the run
is then told to stop. FLAGS go to the command. Prints a table and one JSON line.
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
PATIENCE = 600.0  # seconds


def imported(module: str) -> float:
    """Seconds that a new process takes to import a module, its own start left out."""
    code = (
        "import time; start = time.perf_counter(); "
        f"import {module}; print(time.perf_counter() - start)"
    )
    line = [sys.executable, "-c", code]
    return float(subprocess.run(line, check=True, capture_output=True).stdout)


def imports(rounds: int) -> dict[str, float]:
    """Median seconds of each module, in turns after one import that warms the disk."""
    found: dict[str, list[float]] = {module: [] for module in MODULES}
    for turn in range(rounds + 1):
        for module, seconds in found.items():
            value = imported(module)
            if turn:
                seconds.append(value)
    return {module: statistics.median(seconds) for module, seconds in found.items()}


def first_step(config: str, cache: pathlib.Path, flags: Sequence[str]) -> float:
    """Seconds from the command to the first step's metrics on disk.

    Raises:
        RuntimeError: if the command ends before that, or takes longer than PATIENCE.
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
                if run.poll() is not None or time.perf_counter() - start > PATIENCE:
                    raise RuntimeError(f"{' '.join(line)} made no step")
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait()


def has_trained(folder: pathlib.Path) -> bool:
    """Whether a loss is in the run's metrics."""
    file = folder / "metrics.jsonl"
    return file.exists() and '"loss"' in file.read_text()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="of the command, after --")
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
    print(f"first step: {starts[0]:.1f} s with an empty compile cache; then {warm} s")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
