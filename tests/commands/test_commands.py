"""`python -m logo_jax` lists the commands."""

import os
import runpy
import subprocess
import sys

from logo_jax import convert, doctor


def test_a_name_that_is_not_utf_8_can_be_printed():
    program = "from logo_jax import _cli; _cli.run(lambda: print('gr\\udcfcn'))"
    env = os.environ | {"PYTHONIOENCODING": "utf-8"}
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, capture_output=True, check=True, env=env)
    assert done.stdout == b"gr\\udcfcn\n"


def test_all_commands_are_listed_with_their_descriptions(capsys):
    runpy.run_module("logo_jax", run_name="__main__")
    first, empty, *lines = capsys.readouterr().out.splitlines()
    assert "--help" in first
    assert not empty
    names = [line.split()[2] for line in lines]
    assert names == [
        f"logo_jax.{name}"
        for name in ("convert", "doctor", "embed", "evaluate", "main", "predict")
        + ("prepare", "report", "sweep")
    ]
    for line, command in zip(lines[:2], (convert, doctor), strict=True):
        assert line.endswith((command.__doc__ or "").partition("\n")[0])
