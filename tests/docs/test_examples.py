"""The examples run, and their losses decrease."""

import importlib
import re

import jax
import pytest


@pytest.mark.parametrize(
    ("name", "steps", "batch"), [("own_loop", 20, 8), ("nnx_loop", 100, 32)]
)
def test_an_example_runs_and_its_loss_decreases(
    name, steps, batch, monkeypatch, capsys
):
    example = importlib.import_module(f"examples.{name}")
    monkeypatch.setattr(example, "STEPS", steps)
    monkeypatch.setattr(example, "BATCH", batch)
    with jax.numpy_dtype_promotion("standard"):  # JAX's default, as in users' programs
        example.main()
    losses = re.findall(r"loss (-?[\d.]+)", capsys.readouterr().out)
    assert float(losses[-1]) < float(losses[0])
