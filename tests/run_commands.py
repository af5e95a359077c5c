"""Runs command lines in this process."""

import json
import sys

from absl.testing import flagsaver

from logo_jax import _cli, evaluate


def evaluated(folder, *arguments):
    """The report that `logo_jax.evaluate` writes of a run."""
    before = set(folder.rglob("evaluations/*.json"))
    times = {file: file.stat().st_mtime_ns for file in before}
    argv, sys.argv = sys.argv, ["evaluate", f"--workdir={folder}", *arguments]
    try:
        with flagsaver.flagsaver():
            evaluate.main(_cli.parse(sys.argv, ("workdir",)))
    finally:
        sys.argv = argv
    (file,) = (
        file
        for file in folder.rglob("evaluations/*.json")
        if times.get(file) != file.stat().st_mtime_ns
    )
    return json.loads(file.read_text())
