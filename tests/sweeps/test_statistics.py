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


@pytest.mark.parametrize("missing", [[], [(1, 2), (4, 0), (4, 2)]])
def test_the_residual_is_that_of_a_linear_model_of_cells_and_seeds(missing):
    values = np.random.default_rng(0).normal(size=(5, 3)) + [[3.0], [0], [1], [2], [9]]
    table = [
        [None if (c, s) in missing else values[c, s] for s in range(3)]
        for c in range(5)
    ]
    rows = [(c, s) for c in range(5) for s in range(3) if (c, s) not in missing]
    design = [[*(c == np.arange(5)), *(s == np.arange(1, 3))] for c, s in rows]
    x = [values[row] for row in rows]
    _, (squares,), rank, _ = np.linalg.lstsq(np.array(design, float), x)
    found = residual_of(table)
    assert found is not None
    assert found.freedom == len(rows) - rank == 8 - len(missing)
    assert found.std == pytest.approx((squares / found.freedom) ** 0.5)


@pytest.mark.parametrize(
    "values", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, None], [None, 2.0]]]
)
def test_there_is_no_residual_if_effects_explain_everything(values):
    assert residual_of(values) is None


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
    """One run of a third cell adds an effect and no residual."""
    values = {"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 5.0], "c": [0.0, np.nan, np.nan]}
    found = differences(values, {"a": "", "b": "a", "c": "a"}, 3)
    assert found.between("b", "a")["values"] == [1.0, 2.0, 1.0]
    paired = stats.ttest_rel(values["b"], values["a"]).confidence_interval(0.95)
    low = found.between("b", "a")["mean"] - found.between("b", "a")["margin"]
    assert low == pytest.approx(paired.low)
    assert found.between("c", "a")["values"] == [-1.0]
    of_three, of_one = (found.between(cell, "a")["margin"] for cell in "bc")
    assert of_one == pytest.approx(3**0.5 * of_three)
    assert found.between("c", "nothing")["mean"] is None


def test_intervals_contain_the_true_difference_in_95_percent_with_missing_runs():
    """1,000 tables of noise without effects; a standard error is 0.7 points."""
    rng = np.random.default_rng(0)
    baselines = {"a": "", "b": "a", "c": "a", "d": "a"}
    num_inside = dict.fromkeys("bcd", 0)
    for _ in range(1000):
        values = rng.normal(size=(4, 3))
        values[3, 1:] = np.nan
        found = differences(dict(zip("abcd", values, strict=True)), baselines, 3)
        for cell in num_inside:
            own = found.between(cell, "a")
            num_inside[cell] += abs(own["mean"]) < own["margin"]
    assert all(0.93 < n / 1000 < 0.98 for n in num_inside.values()), num_inside
