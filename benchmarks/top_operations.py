"""Lists the operations that take most of the time of a training step.

    python -m benchmarks.top_operations [--preset=imagenet] [--kind=logo_joint]

Profiles `--steps` steps on fixed crops and adds up the events of the device by name; on
a CPU, the events of XLA's threads. Prints a table and one JSON line.
"""

import argparse
import collections
import json
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import jax
from jax.profiler import ProfileData

from benchmarks.contenders import Run
from benchmarks.step import KINDS, PRESETS, chosen, ours


def traced(run: Run, steps: int) -> ProfileData:
    """Returns the profile of `steps` steps, after a warm-up step."""
    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                run()
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        return ProfileData.from_file(str(file))


def events(profile: ProfileData) -> Iterator[tuple[str, float]]:
    """Yields name and microseconds of events of devices, or else of XLA's threads."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        for line in plane.lines:
            if (line.name == "XLA Ops") if devices else line.name.startswith("tf_XLA"):
                for event in line.events:
                    if "::" not in event.name:  # not an event of the runtime
                        yield event.name, event.duration_ns / 1e3


def longest(profile: ProfileData, steps: int, top: int) -> list[dict]:
    """Returns a row per operation: name, calls, microseconds and share of a step."""
    spent, count = collections.Counter(), collections.Counter()
    for name, microseconds in events(profile):
        spent[name] += microseconds
        count[name] += 1
    whole = sum(spent.values())
    return [
        {
            "operation": name,
            "times": count[name] // steps,
            "us": round(microseconds / steps, 1),
            "share": round(microseconds / whole, 4),
        }
        for name, microseconds in spent.most_common(top)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--method", choices=("moco", "simsiam"), default="moco")
    parser.add_argument("--kind", choices=KINDS, default="logo_joint")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=0)
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--top", type=int, default=20)
    flags = parser.parse_args(arguments)
    run = ours(chosen(flags, flags.method, flags.kind))
    rows = longest(traced(run, flags.steps), flags.steps, flags.top)
    for row in rows:
        print("{share:7.2%} {us:12.1f} us {times:5d} x {operation}".format(**row))
    print(json.dumps({"jax": jax.__version__, **vars(flags), "rows": rows}))


if __name__ == "__main__":
    main()
