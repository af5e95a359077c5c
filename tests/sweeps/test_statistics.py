"""Intervals of paired differences, compared with a linear model and Student's test."""

import numpy as np
import pytest
from scipy import stats

from logo_jax.sweeps.spec import Setting, Sweep
from logo_jax.sweeps.statistics import Differences, residual_of

METRIC = "accuracy"


def differences(values, baselines, num_seeds):
    """`Differences` of cells, given by name and with a value per seed; NaN: not run."""
    cells = tuple(Setting(name, "x.py", baseline=baselines[name]) for name in values)
    reached = {
        (name, seed): {METRIC: value}
        for name, row in values.items()
        for seed, value in enumerate(row)
        if not np.isnan(value)
    }
    sweep = Sweep(cells, (METRIC,), seeds=tuple(range(num_seeds)))
    return Differences(sweep, reached, METRIC)


def test_the_residual_is_that_of_a_linear_model_of_cells_and_seeds():
    values = np.random.default_rng(0).normal(size=(5, 3)) + [[3.0], [0], [1], [2], [9]]
    cells, seeds = (x.ravel() for x in np.indices(values.shape))
    design = np.concatenate([np.eye(5)[cells], np.eye(3)[seeds][:, 1:]], axis=1)
    _, (squares,), rank, _ = np.linalg.lstsq(design, values.ravel())
    found = residual_of(values)
    assert found is not None
    assert found.freedom == values.size - rank == 8
    assert found.std == pytest.approx((squares / 8) ** 0.5)


def test_the_interval_of_two_cells_is_that_of_the_paired_test():
    a, b = np.random.default_rng(0).normal(size=(2, 4))
    found = differences({"a": a, "b": b}, {"a": "b", "b": ""}, 4).between("a", "b")
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found["mean"] - found["margin"] == pytest.approx(interval.low)
    assert found["mean"] + found["margin"] == pytest.approx(interval.high)


def test_cells_with_the_same_root_share_a_residual_and_other_cells_do_not_change_it():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=3) for name in "abc"}
    others = {name: 100 * rng.normal(size=3) for name in "de"}
    baselines = {"a": "", "b": "a", "c": "b", "d": "", "e": "d"}
    found = differences(values | others, baselines, 3)
    residual = residual_of(list(values.values()))
    assert residual is not None
    margin = stats.t.ppf(0.975, 4) * residual.std * (2 / 3) ** 0.5
    for cell, other in ("ab", "bc", "ac"):
        assert found.between(cell, other)["margin"] == pytest.approx(margin)
    across = found.between("d", "a")
    paired = stats.ttest_rel(others["d"], values["a"]).confidence_interval(0.95)
    assert across["mean"] - across["margin"] == pytest.approx(paired.low)


def test_missing_runs_do_not_change_the_results_of_other_cells():
    values = {"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 5.0], "c": [0.0, np.nan, np.nan]}
    found = differences(values, {"a": "", "b": "a", "c": "a"}, 3)
    assert found.between("b", "a")["values"] == [1.0, 2.0, 1.0]
    paired = stats.ttest_rel(values["b"], values["a"]).confidence_interval(0.95)
    low = found.between("b", "a")["mean"] - found.between("b", "a")["margin"]
    assert low == pytest.approx(paired.low)
    assert found.between("c", "a")["values"] == [-1.0]
    assert found.between("c", "a")["margin"] is None
    assert found.between("c", "nothing")["mean"] is None
