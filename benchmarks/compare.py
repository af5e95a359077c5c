"""Runs a benchmark alternately at two commits and prints the ratio of each figure.

    python -m benchmarks.compare main HEAD --rounds=3 -- -m benchmarks.step --width=16

Each commit is checked out in a temporary folder, and this Python runs the arguments
after `--` there. The figures are the numbers in the last JSON line that the benchmark
prints; items of a list are named by their strings. Figures that never differ, and
figures that are 0, are omitted. Prints a table and one JSON line: AFTER / BEFORE,
median and range over the rounds.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", help="first commit")
    parser.add_argument("after", help="second commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("command", nargs="+", help="arguments for Python, after --")
    flags = parser.parse_args(arguments)
    commits = (flags.before, flags.after)
    with checked_out(commits) as folders:
        rounds = [run_round(folders, flags.command, i) for i in range(flags.rounds)]
    table = ratios(rounds)
    for name, (median, least, most) in table.items():
        print(f"{name:50s} {median:7.3f}  ({least:.3f} to {most:.3f})")
    print(json.dumps({**vars(flags), "ratios": table}))


@contextlib.contextmanager
def checked_out(commits: Sequence[str]) -> Iterator[list[Path]]:
    """Checks out each commit in a temporary folder; yields the folders."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folders = [Path(temporary) / f"{i}" for i in range(len(commits))]
        for folder, commit in zip(folders, commits, strict=True):
            git("worktree", "add", "--detach", str(folder), commit)
            stack.callback(git, "worktree", "remove", "--force", str(folder))
        yield folders


def git(*arguments: str) -> None:
    """Runs git.

    Raises:
        SystemExit: if git fails, with its error message.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())


def run_round(
    folders: Sequence[Path], command: Sequence[str], number: int
) -> list[Figures]:
    """Returns the figures of each folder; odd rounds begin with the last folder."""
    order = list(range(len(folders)))[:: -1 if number % 2 else 1]
    found = {i: figures(run(folders[i], command)) for i in order}
    return [found[i] for i in range(len(folders))]


def run(folder: Path, command: Sequence[str]) -> dict[str, Any]:
    """Runs a command in a folder and returns the last JSON line that it prints.

    Raises:
        SystemExit: if the command fails or prints no JSON line, with its error message.
    """
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(
            f"{' '.join(command)} must print a JSON line; its exit code "
            f"was {done.returncode}: {done.stderr.strip()[-500:]}"
        )
    return json.loads(lines[-1])


def figures(report: Any, name: str = "") -> Figures:
    """Returns the numbers of a report by their path.

    >>> figures({"rounds": 2, "rows": [{"step": "joint", "speed": 3.0}]})
    {'rounds': 2.0, 'rows/joint/speed': 3.0}
    """
    if isinstance(report, bool | str | None):
        return {}
    if isinstance(report, int | float):
        return {name: float(report)}
    if isinstance(report, Mapping):
        parts = [(str(key), value) for key, value in report.items()]
    else:
        parts = [(_named(item, i), item) for i, item in enumerate(report)]
    found: Figures = {}
    for key, value in parts:
        found |= figures(value, f"{name}/{key}" if name else key)
    return found


def _named(item: Any, number: int) -> str:
    """Returns the strings of an item, or its number if it has no strings."""
    values = item.values() if isinstance(item, Mapping) else ()
    return " ".join(x for x in values if isinstance(x, str)) or f"{number}"


def ratios(rounds: Sequence[Sequence[Figures]]) -> dict[str, tuple[float, ...]]:
    """Returns median, minimum and maximum of after / before, if a figure changes.

    >>> ratios([[{"s": 2.0, "n": 1.0}, {"s": 1.0, "n": 1.0}]])
    {'s': (0.5, 0.5, 0.5)}
    """
    found = {}
    for name in rounds[0][0]:
        pairs = [[run.get(name, 0.0) for run in each] for each in rounds]
        values = {value for pair in pairs for value in pair}
        if len(values) > 1 and 0.0 not in values:
            quotients = [after / before for before, after in pairs]
            middle = statistics.median(quotients)
            found[name] = (middle, min(quotients), max(quotients))
    return found


if __name__ == "__main__":
    main()
