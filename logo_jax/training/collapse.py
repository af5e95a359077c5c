"""Detects collapsed embeddings from rows of metrics, and acts by a policy.

`log` reports findings. `stop` ends a run that has collapsed. `rollback` restarts it
from its last healthy checkpoint with other crops and noise, at most `MOST_ROLLBACKS`
times; with the same crops it would collapse again, because a run is deterministic.
Source: PaLM's restarts on other batches, Chowdhery et al. 2022, section 5.1,
https://arxiv.org/abs/2204.02311.

The thresholds lie between measured values. Healthy SimSiam-LoGo on photographs, 1,000
steps, had a std of 0.98 and a rank of 4.1 to 8.3; SimSiam without its stop-gradient
0.65 to 0.89 and 0.9 to 1.1; MoCo that collapsed on noise had a std that falls from
0.05 to 0.03. Healthy MoCo on CIFAR-10 begins as a narrow cone that widens: from step
100 to 420 its std was 0.06 to 0.25, and its rank 1.03 to 2.
"""

import collections
import enum
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from logo_jax.training import atomic
from logo_jax.training.logging.metric_writer import by_each_seed

Row = Mapping[str, float]

POLICIES = ("log", "stop", "rollback", "off")
MOST_ROLLBACKS = 3
ROLLBACKS_FILE = "rollbacks.json"

WARMUP_STEPS = 100  # embeddings start narrow and spread out: earlier rows are ignored
OPENING_STEPS = 1000  # until then a narrow cone may be a healthy beginning
PATIENCE = 3  # rows in sequence: one may be an unlucky batch, or a short dip
NARROW_STD = 0.4  # below it a low rank may be a healthy beginning
POINT_STD = 0.1  # 1 is isotropic; images that share 99 % of their direction have 0.1
LINE_RANK = 1.5  # a line or two clusters have 1, two even directions 2
FEW_RANK = 2.0  # less than a plane, for hundreds of images; healthy runs have 4 or more
SATURATED = 0.9  # share of pairs without repulsion: the others cannot make up for it


class Health(enum.IntEnum):
    """State of a run; the larger, the worse."""

    HEALTHY = 0
    PARTIAL = 1
    COLLAPSED = 2


class Assessment(NamedTuple):
    """State of a run, and a sentence of advice; "" if there is none to give."""

    state: Health
    advice: str = ""


class Rule(NamedTuple):
    """A sign of collapse; until OPENING_STEPS it may be excused."""

    state: Health
    metric: str
    shows: Callable[[float], bool]
    advice: str
    excused: Callable[[Sequence[Row]], bool] = lambda rows: False

    def holds(self, rows: Sequence[Row], recent: Sequence[Row]) -> bool:
        """Whether all rows show the sign, and recent ones do not excuse it."""
        values = [row.get(self.metric) for row in rows]
        if not all(value is not None and self.shows(value) for value in values):
            return False
        return recent[-1]["step"] > OPENING_STEPS or not self.excused(recent)


def _widens(rows: Sequence[Row]) -> bool:
    """Whether the cone of embeddings becomes wider."""
    return rows[-1]["health/std"] > rows[0]["health/std"]


def _is_narrow(rows: Sequence[Row]) -> bool:
    """Whether the cone of embeddings is narrow."""
    return all(row["health/std"] < NARROW_STD for row in rows)


POINT = (
    "all images are embedded as one point; check that targets pass no gradient, and "
    "lower optimizer.learning_rate or add a warm-up"
)
LINE = (
    "all embeddings lie on one line; check that targets pass no gradient, and lower "
    "optimizer.learning_rate or add a warm-up"
)
FEW = (
    "embeddings use few of their dimensions; stronger crops or color changes, or a "
    "lower optimizer.learning_rate, ask more of them"
)
SATURATION = (
    "LoGo's softplus is saturated, so that local crops feel no repulsion; lower "
    "logo.regressor_learning_rate"
)
QUEUE_FILLS = (
    "the loss rises because the queue fills with keys that are harder to tell apart "
    "than the random ones it began with: that is normal"
)
RULES = (  # the first that holds decides
    Rule(Health.COLLAPSED, "health/std", lambda x: x < POINT_STD, POINT, _widens),
    Rule(Health.COLLAPSED, "health/rank", lambda x: x < LINE_RANK, LINE, _is_narrow),
    Rule(Health.PARTIAL, "health/rank", lambda x: x < FEW_RANK, FEW, _is_narrow),
    Rule(Health.PARTIAL, "health/saturation", lambda x: x > SATURATED, SATURATION),
)


def assess(rows: Sequence[Row]) -> Assessment:
    """The state of one seed by its latest rows.

    Args:
        rows: as in metrics.jsonl, with `step`, oldest first. The last `PATIENCE` with
            health metrics count, if all come after `WARMUP_STEPS`.

    >>> assess([{"step": s, "health/std": 0.01} for s in (120, 140, 160)]).state.name
    'COLLAPSED'
    >>> assess([{"step": s, "health/std": 0.01} for s in (60, 80, 100)]).state.name
    'HEALTHY'
    """
    recent = [row for row in rows if "health/std" in row][-PATIENCE:]
    if len(recent) == PATIENCE and recent[0]["step"] > WARMUP_STEPS:
        for rule in RULES:
            if rule.holds(recent, recent):
                return Assessment(rule.state, rule.advice)
    if len(recent) > 1 and recent[-2].get("health/queue_fill", 1.0) < 1:
        rises = recent[-1]["loss"] > recent[-2]["loss"]
        return Assessment(Health.HEALTHY, QUEUE_FILLS if rises else "")
    return Assessment(Health.HEALTHY)


def suspicious(rows: Sequence[Row]) -> bool:
    """Whether the last row shows a sign of collapse, even if it is the only one."""
    return rows[-1]["step"] > WARMUP_STEPS and any(
        rule.holds(rows[-1:], rows) for rule in RULES if rule.state is Health.COLLAPSED
    )


class CollapseError(RuntimeError):
    """A run has collapsed and must not continue; `step` updates were done by then."""

    def __init__(self, step: int, advice: str):
        super().__init__(f"collapsed at step {step}: {advice}")
        self.step = step


class CollapseDetector:
    """Assesses a run row by row; reports each finding once.

    Args:
        policy: one of `POLICIES`.
        seeds: trained at once; the seed in the worst state decides.
        say: prints a finding, one line.
        warn: prints a collapse; None: `say` does.
    """

    def __init__(
        self,
        policy: str,
        seeds: Sequence[int],
        say: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
    ):
        self._policy = policy
        self._seeds = seeds
        self._say, self._warn = say, warn or say
        self._rows = [collections.deque[Row](maxlen=PATIENCE) for _ in seeds]
        self._state = Health.HEALTHY
        self._reported = {""}

    @property
    def allows_checkpoint(self) -> bool:
        """Whether the state of the newest row may be saved.

        Under `stop` and `rollback` not if it is suspicious, so that all checkpoints are
        healthy ones.
        """
        if self._policy in ("log", "off"):
            return True
        return not any(suspicious([*rows]) for rows in self._rows if rows)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Assesses the run after a row of training metrics.

        Raises:
            CollapseError: if the run has collapsed and the policy is not `log`.
        """
        if self._policy == "off":
            return
        row = {"step": step, **values}
        for rows, own in zip(self._rows, by_each_seed(row, self._seeds), strict=True):
            rows.append(own)
        state, advice = max(map(assess, self._rows), key=lambda found: found.state)
        collapsed = state is Health.COLLAPSED
        if collapsed and self._policy != "log":
            raise CollapseError(step, advice)
        if state != self._state or advice not in self._reported:
            finding = (f"step {step}", state.name.lower(), advice)
            report = self._warn if collapsed else self._say
            report(": ".join(filter(None, finding)))
        self._state = state
        self._reported.add(advice)


def rollbacks(folder: pathlib.Path) -> list[int]:
    """Steps at which the run of a folder has been rolled back, in order."""
    file = folder / ROLLBACKS_FILE
    return json.loads(file.read_text()) if file.exists() else []


def next_rollback(times: int, collapse: CollapseError) -> int:
    """The number of the rollback that follows so many, counted from 1.

    Raises:
        CollapseError: the one given, after `MOST_ROLLBACKS`.
    """
    if times >= MOST_ROLLBACKS:
        raise collapse
    return times + 1


def record_rollback(folder: pathlib.Path, step: int) -> None:
    """Adds a rollback from a step to the run's record.

    The record survives a kill, so that a resumed run draws as the rolled-back one.
    """
    steps = [*rollbacks(folder), step]
    atomic.write_text(folder / ROLLBACKS_FILE, json.dumps(steps) + "\n")
