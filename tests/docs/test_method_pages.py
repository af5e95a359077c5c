"""The programs on the pages of the methods run, and their losses decrease."""

import pathlib
import re

import jax
import pytest

PAGES = sorted(pathlib.Path(__file__).parents[2].glob("docs/methods/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_program_of_a_method_runs_and_its_loss_decreases(page, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for line in program.splitlines() if line.strip()]
    assert len(lines) <= 30
    # as in users' programs
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(program, {})
    losses = re.findall(r"loss (-?[\d.]+)", capsys.readouterr().out)
    assert float(losses[-1]) < float(losses[0])
