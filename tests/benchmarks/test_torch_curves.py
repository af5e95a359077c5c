"""`benchmarks.torch_curves` without PyTorch: cells, finished runs, intervals."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import torch_curves
from logo_jax.sweeps import spec
from logo_jax.sweeps.runs import make_runs

METRICS = ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1")
MACHINE = {
    "devices": "1 x cpu",
    "cores": 2,
    "versions": {"python": "3", "jax": "1", "torch": "2", "torchvision": "0"},
}
OURS, THEIRS = [38.0, 40.0], [39.0, 42.0]  # of two seeds


def runs_of(folder, cases=("moco",), seeds=2):
    compared = torch_curves.chosen(cases, seeds)
    fields = torch_curves.fields_of(compared, folder, 0)
    return compared, {
        side: make_runs(compared, folder / side, fields) for side in torch_curves.SIDES
    }


def finish(run, value):
    """Writes the record of a run that was evaluated twice."""
    run.out.mkdir(exist_ok=True)
    record = {
        "arguments": run.arguments,
        "metrics": dict.fromkeys(METRICS, value),
        "curves": {name: [[1500, value], [3000, value]] for name in METRICS},
        "seconds": 60.0,
        "commit": "abc",
        "machine": MACHINE,
    }
    run.record.write_text(json.dumps(record))


@pytest.fixture
def finished(tmp_path):
    """Folder of finished runs of MoCo."""
    _, runs = runs_of(tmp_path)
    for side, values in zip(torch_curves.SIDES, (OURS, THEIRS), strict=True):
        for run, value in zip(runs[side], values, strict=True):
            finish(run, value)
    return tmp_path


def test_the_interval_is_that_of_students_test_of_independent_samples():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 3)).tolist()
    found = torch_curves.difference(ours, theirs)
    low, high = stats.ttest_ind(ours, theirs).confidence_interval(0.95)
    low_high = found["mean"] - found["margin"], found["mean"] + found["margin"]
    np.testing.assert_allclose(low_high, (low, high))
    assert torch_curves.difference([2.0], [1.5]) == {"mean": 0.5, "margin": None}


def test_cells_and_their_fields_are_those_of_the_study(tmp_path):
    compared, runs = runs_of(tmp_path, cases=tuple(torch_curves.CASES))
    study = spec.read(torch_curves.STUDY)
    of_study = {run.name: run for run in make_runs(study, tmp_path, [])}
    assert compared.metrics == study.metrics
    for run in runs["PyTorch"]:
        torch_curves.require_supported(run)
        config, own = run.config, of_study[run.name].config
        assert config["train"]["num_steps"] == own["train"]["num_steps"]
        assert config["monitor"].pop("knn_every_steps") == 750
        for group in ("encoder", "logo", "method", "optimizer", "crops", "augment"):
            assert config[group] == own[group]


def test_an_unknown_case_is_an_error():
    with pytest.raises(ValueError, match="unknown swav; use some of moco,simsiam,logo"):
        torch_curves.chosen(["moco", "swav"], 3)


@pytest.mark.parametrize(
    ("case", "field"),
    [
        ("simsiam", "optimizer.schedule=step"),
        ("simsiam", "augment.solarize_prob=0.5"),
        ("simsiam", "augment.second.jitter_prob=0.5"),
        ("simsiam", "logo.update_kind=joint"),
        ("logo", "logo.regressor_norm=joint"),
    ],
)
def test_a_field_that_pytorchs_side_lacks_is_an_error(tmp_path, case, field):
    compared = torch_curves.chosen([case], 1)
    (run,) = make_runs(compared, tmp_path, [f"--config.{field}"])
    with pytest.raises(ValueError, match="benchmarks/torch_methods.py has no config"):
        torch_curves.require_supported(run)


def test_networks_of_other_sizes_are_an_error():
    with pytest.raises(ValueError, match="numbers of parameters differ"):
        torch_curves.require_same_sizes({}, {"encoder": np.zeros(3)})


def test_finished_runs_are_not_trained_again_and_their_results_replace_older(
    finished, monkeypatch, capsys
):
    trained = []
    monkeypatch.setattr(
        torch_curves.sweep, "train_all", lambda runs, *_, **__: not trained.extend(runs)
    )
    monkeypatch.setattr(
        torch_curves, "train_in_torch", lambda run, _: trained.append(run)
    )
    page = finished / "page.md"
    page.write_text("# Page\n")
    line = [f"--data={finished}", f"--out={finished}", f"--results={page}"]
    for _ in range(2):
        assert torch_curves.main([*line, "--cases=moco", "--seeds=2"]) == 0
    assert trained == []
    row = (
        "| moco_baseline | knn/k20_t0.07/top1 | 39.00 ± 1.41 (38.00, 40.00) "
        "| 40.50 ± 2.12 (39.00, 42.00) | -1.50 (-9.26 to +6.26) |"
    )
    assert row in capsys.readouterr().out
    text = page.read_text()
    assert text.count(row) == text.count("written by benchmarks.torch_curves") == 1
    assert "benchmarks.torch_curves --data=DIR --out=OUT --cases=moco --seeds=2" in text
    assert (finished / "figures" / "torch_curves.png").read_bytes()[:4] == b"\x89PNG"
    report = json.loads((finished / "curves.json").read_text())["moco_baseline"]
    assert report["curves"]["PyTorch"]["1"][-1]["step"] == 3000
    assert report["differences"][METRICS[1]]["1500"]["mean"] == -1.5


def test_only_seeds_that_both_have_finished_are_compared(finished):
    compared, runs = runs_of(finished, seeds=3)
    finish(runs["PyTorch"][2], 50.0)
    comparison = torch_curves.read(compared, runs)
    assert comparison.seeds("moco_baseline") == [0, 1]
    assert comparison.values("PyTorch", "moco_baseline", METRICS[0], 3000) == THEIRS


def test_without_a_finished_run_of_both_the_error_says_so(tmp_path):
    with pytest.raises(ValueError, match="no run is finished by both"):
        torch_curves.final_table(torch_curves.read(*runs_of(tmp_path)))
