"""`python -m logo_jax` lists the commands."""

import runpy

from logo_jax import convert, doctor


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
