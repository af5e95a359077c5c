"""Runs a benchmark at two commits in turns and prints the ratio of each figure.

    python -m benchmarks.compare main HEAD --rounds=3 -- -m benchmarks.step --width=16

Each commit is checked out in a temporary folder, and what follows `--` is handed to
this Python there. The benchmark's last JSON line has its figures; items of a list are
named by their texts. Figures that never differ, and those that are 0, are left out.
Prints a table and one JSON line: AFTER over BEFORE, median and range of the rounds.
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
    """Checks out, runs in turns, prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", help="another")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("command", nargs="+", help="for Python, behind --")
    flags = parser.parse_args(arguments)
    commits = (flags.before, flags.after)
    with checked_out(commits) as folders:
        rounds = [in_turns(folders, flags.command, i) for i in range(flags.rounds)]
    table = ratios(rounds)
    for name, (median, least, most) in table.items():
        print(f"{name:50s} {median:7.3f}  ({least:.3f} to {most:.3f})")
    print(json.dumps({**vars(flags), "ratios": table}))


@contextlib.contextmanager
def checked_out(commits: Sequence[str]) -> Iterator[list[Path]]:
    """A folder for each commit of the repository around this one; gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folders = [Path(temporary) / f"{i}" for i in range(len(commits))]
        for folder, commit in zip(folders, commits, strict=True):
            git("worktree", "add", "--detach", str(folder), commit)
            stack.callback(git, "worktree", "remove", "--force", str(folder))
        yield folders


def git(*arguments: str) -> None:
    """Runs git.

    Raises:
        SystemExit: where it fails, with what it says.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())


def in_turns(
    folders: Sequence[Path], command: Sequence[str], number: int
) -> list[Figures]:
    """The figures of each folder; every other round begins with the last."""
    order = list(range(len(folders)))[:: -1 if number % 2 else 1]
    found = {i: figures(run(folders[i], command)) for i in order}
    return [found[i] for i in range(len(folders))]


def run(folder: Path, command: Sequence[str]) -> dict[str, Any]:
    """The last JSON line that a command prints in a folder.

    Raises:
        SystemExit: where it fails or prints none, with what it says.
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
            f"{' '.join(command)} must print a JSON line; it ended with "
            f"{done.returncode}: {done.stderr.strip()[-500:]}"
        )
    return json.loads(lines[-1])


def figures(report: Any, name: str = "") -> Figures:
    """The numbers of a report by their path.

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
    """An item's texts, or its number where it has none."""
    values = item.values() if isinstance(item, Mapping) else ()
    return " ".join(x for x in values if isinstance(x, str)) or f"{number}"


def ratios(rounds: Sequence[Sequence[Figures]]) -> dict[str, tuple[float, ...]]:
    """Median, least and most of after / before, of each figure that moves.

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
