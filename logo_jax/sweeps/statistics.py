"""Differences between the cells of a sweep, with confidence intervals.

Seeds are blocks: the value of a run is modeled as the sum of an effect of its cell, an
effect of its seed and a residual. The standard deviation of the residual is estimated
from all runs of the cells whose chains of baselines end at the same cell, so that a few
seeds of many cells give as precise an estimate as possible. For two cells alone, the
interval is that of Student's paired t-test. If some of a cell's runs are missing, its
intervals contain the true difference slightly more often than in 95 % of cases.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from logo_jax.sweeps.spec import Sweep

Reached = Mapping[tuple[str, int], Mapping[str, float]]  # by cell and seed, by metric
CONFIDENCE = 0.95


class Residual(NamedTuple):
    """The part of the values of runs that neither cell nor seed explains.

    Attributes:
        std: standard deviation of the residual.
        freedom: degrees of freedom of the standard deviation.
    """

    std: float
    freedom: int

    def margin(self, n: int) -> float:
        """Half width of the 95 % interval of the mean of n differences of two runs."""
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom)
        return float(quantile) * self.std * (2 / n) ** 0.5


def summary(
    values: Sequence[float], residual: Residual | None = None
) -> dict[str, Any]:
    """Returns the values with their number, mean and sample standard deviation (n - 1).

    Args:
        values: values of runs, or differences of two runs with the same seed.
        residual: residual of a run, if the values are differences. `margin` is then the
            half width of the 95 % interval of the mean; otherwise it is None.

    >>> summary([1.0, 3.0])["mean"], summary([1.0])["std"], summary([])["mean"]
    (2.0, None, None)
    >>> round(summary([1.0, 3.0], residual_of([[0.0, 0.0], [1.0, 3.0]]))["margin"], 2)
    12.71
    """
    n = len(values)
    return {
        "values": list(values),
        "n": n,
        "mean": statistics.mean(values) if values else None,
        "std": statistics.stdev(values) if n > 1 else None,
        "margin": residual.margin(n) if n and residual else None,
    }


def residual_of(values: Sequence[Sequence[float | None]]) -> Residual | None:
    """Returns the residual of values [cells, seeds], of which some may be missing.

    For two cells, its standard deviation is that of the differences divided by sqrt(2).

    Args:
        values: one value for each cell and seed; None for a missing run.

    Returns:
        The residual; None if the effects of cells and seeds explain any values.

    >>> residual = residual_of([[0.0, 0.0, 5.0], [1.0, 3.0, None]])
    >>> residual.freedom, round(residual.std, 6)
    (1, 1.0)
    """
    known = np.array([[value is not None for value in row] for row in values])
    cells, seeds = known.nonzero()
    effects = np.hstack([np.eye(known.shape[0])[cells], np.eye(known.shape[1])[seeds]])
    x = np.asarray(values, float)[known]
    fitted, _, rank, _ = np.linalg.lstsq(effects, x)
    freedom = len(x) - int(rank)
    if not freedom:
        return None
    left = x - effects @ fitted
    return Residual(float(np.sqrt(np.square(left).sum() / freedom)), freedom)


class Differences:
    """Differences between the cells of a sweep, in one metric.

    Args:
        sweep: the sweep, with its cells.
        reached: values of the finished runs by (cell name, seed), and then by metric.
        metric: name of the metric.
    """

    def __init__(self, sweep: Sweep, reached: Reached, metric: str):
        self._seeds = sweep.seeds
        self._baselines = {cell.name: cell.baseline for cell in sweep.cells}
        self._values = {which: found[metric] for which, found in reached.items()}

    def between(self, cell: str, other: str) -> dict[str, Any]:
        """Returns the `summary` of `cell` minus `other`, for seeds that both have."""
        family = self._family(cell)
        residual = self._residual(family if other in family else [cell, other])
        pairs = [(self._value(cell, s), self._value(other, s)) for s in self._seeds]
        values = [a - b for a, b in pairs if a is not None and b is not None]
        return summary(values, residual)

    def _residual(self, cells):
        return residual_of([[self._value(c, s) for s in self._seeds] for c in cells])

    def _value(self, cell, seed):
        """Returns the value of a run; None if it is missing."""
        return self._values.get((cell, seed))

    def _family(self, cell):
        """Cells with runs whose chain of baselines ends at the same cell as this."""
        root = self._root(cell)
        started = {name for name, _ in self._values}
        return [c for c in self._baselines if c in started and self._root(c) == root]

    def _root(self, cell):
        while baseline := self._baselines.get(cell):
            cell = baseline
        return cell


def verdict(published: float, found: Mapping[str, Any]) -> str:
    """Returns what a confidence interval says about a published difference.

    The verdict is about the sign and the size of the published difference. If the
    interval is on the claimed side of 0, the claim holds, and the verdict adds whether
    the interval is entirely below or above the published size. If the interval is on
    the other side of 0, the verdict is the reverse. If the interval contains 0, the
    effect is not seen if the interval excludes the published size, and otherwise the
    claim is not decided.

    Args:
        published: published difference, not 0; the claim is its sign.
        found: result of `summary` for the differences, of which "mean" and "margin" are
            used; margin is the half width of the confidence interval.

    >>> verdict(4.8, {"mean": 2.0, "margin": 1.0})
    'holds, less than published'
    >>> verdict(4.8, {"mean": 2.0, "margin": 3.0})
    'not decided'
    >>> verdict(4.8, {"mean": 0.5, "margin": 1.0})
    'not seen, published size excluded'
    >>> verdict(-7.4, {"mean": 2.0, "margin": 1.0})
    'the reverse'
    >>> verdict(-2.1, {"mean": -4.8, "margin": 3.3})
    'holds'
    >>> verdict(-1.2, {"mean": -4.8, "margin": 3.3})
    'holds, more than published'
    """
    if found["margin"] is None:
        return "-"
    sign = 1 if published > 0 else -1
    low = sign * found["mean"] - found["margin"]
    high = sign * found["mean"] + found["margin"]
    if high < 0:
        return "the reverse"
    if low <= 0:
        excluded = abs(published) > high
        return "not seen, published size excluded" if excluded else "not decided"
    if abs(published) > high:
        return "holds, less than published"
    return "holds, more than published" if abs(published) < low else "holds"
