"""The Colab tour: the notebook matches its script, and every cell runs."""

import json
import re
import tomllib
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode

from colabs.notebook import NOTEBOOK, SCRIPT, convert
from logo_jax.training.logging.metric_writer import read_rows
from tests.commands.test_main import TINY
from tests.data.pictures import smooth
from tests.xla_flags import DEVICES

NUM_PICTURES = 7


@pytest.fixture(name="notebook")
def fixture_notebook():
    return nbformat.reads(NOTEBOOK.read_text(encoding="utf-8"), as_version=4)


def code_cells(notebook) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_matches_its_script_and_has_no_outputs(notebook):
    script = SCRIPT.read_text(encoding="utf-8")
    again = convert(script)
    assert NOTEBOOK.read_text(encoding="utf-8") == again, "run: make colab"
    nbformat.validate(notebook)
    assert len(notebook.cells) == script.count("\n# %%") + 1
    assert not any(cell.outputs for cell in code_cells(notebook))


@pytest.fixture(name="install")
def fixture_install(notebook):
    """The names defined in the cell that installs; nothing is installed here."""
    names = {}
    exec(code_cells(notebook)[0].source, names)
    return names


def test_a_sufficient_jax_is_kept_and_an_older_one_is_replaced_with_its_plugin(install):
    url = "git+https://host/logo_jax.git"
    allowed, wanted = install["JAX"], install["requirements"]
    kept = f"logo_jax @ {url}", "jax==0.10.2"
    assert wanted(url, {"jax": "0.10.2", "jax-cuda12-plugin": "0.10.2"}) == kept
    old = {"jax": "0.9.10", "jax-cuda12-plugin": "0.9.10"}
    assert wanted(url, old)[1] == f"jax[cuda12]{allowed}"
    assert wanted(url, {"jax": "0.12.0", "libtpu": "1"})[1] == f"jax[tpu]{allowed}"
    clone = SCRIPT.parents[1]
    assert wanted(str(clone), old)[0] == f"logo_jax @ {clone.as_uri()}"
    with pytest.raises(
        ValueError, match="SOURCE='/' must be a git URL, wheel or clone"
    ):
        wanted("/", old)


def test_the_allowed_jax_is_that_of_the_package(install):
    project = tomllib.loads((SCRIPT.parents[1] / "pyproject.toml").read_text())
    assert f"jax{install['JAX']}" in project["project"]["dependencies"]


@pytest.fixture(name="tiny")
def fixture_tiny(tmp_path, monkeypatch) -> Path:
    """The folder of a tour with a tiny run."""
    for split, count in (("train", 40), ("test", 16)):
        images = np.stack([smooth(12, 12, seed=i) for i in range(count)])
        np.savez(tmp_path / split, images=images, labels=np.arange(count) % 4)
    changes = TINY | {"data.path": str(tmp_path), "encoder.backbone": "resnet10"}
    changes["batch_norm"] = "split:2"  # of 8 images
    fields = {name: str(value) for name, value in changes.items()}
    monkeypatch.setenv("LOGO_TOUR_CHANGES", json.dumps(fields))
    monkeypatch.setenv("LOGO_TOUR_DIR", str(tmp_path / "tour"))
    monkeypatch.setenv("XLA_FLAGS", DEVICES.format(1))
    return tmp_path / "tour"


@pytest.mark.slow
def test_every_cell_runs_shows_its_figures_and_writes_its_files(notebook, tiny):
    done = nbclient.NotebookClient(notebook, timeout=None).execute()
    assert all(cell.execution_count for cell in code_cells(done))
    outputs = [output for cell in code_cells(done) for output in cell.outputs]
    printed = "".join(output.text for output in outputs if "text" in output)
    assert re.search(r"resumed from step [1-4] of 4\n", printed)
    assert read_rows(tiny / "run" / "metrics.jsonl")[-1]["step"] == 4
    shown = [output.data for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == NUM_PICTURES
    assert len(list((tiny / "run" / "evaluations").iterdir())) == 2
    assert (tiny / "encoder.safetensors").stat().st_size > 1000
    assert re.search(r"stopped by SIGINT after step [1-3]", printed)
