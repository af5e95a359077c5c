"""Detects collapsed embeddings from logged metrics and reacts according to a policy.

`log` only reports findings. `stop` ends a collapsed run. `rollback` restarts the run
from its last healthy checkpoint with other crops and noise, at most `MOST_ROLLBACKS`
times. With the same crops the run would collapse again, because training is
deterministic. Source: PaLM's restarts on other batches, Chowdhery et al. 2022,
section 5.1, https://arxiv.org/abs/2204.02311.

The thresholds are between the values of healthy and collapsed runs that we measured:

- Healthy SimSiam-LoGo on photographs, 1,000 steps: std 0.98, rank 4.1 to 8.3.
- SimSiam without its stop-gradient: std 0.65 to 0.89, rank 0.9 to 1.1.
- MoCo that collapsed on noise: std falls from 0.05 to 0.03.
- Healthy MoCo on CIFAR-10 starts with embeddings in a narrow cone that widens: from
  step 100 to 420, std 0.06 to 0.25 and rank 1.03 to 2.
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

WARMUP_STEPS = 100  # earlier rows are ignored: embeddings start in a narrow cone
OPENING_STEPS = 1000  # until this step a narrow cone may be healthy
PATIENCE = 3  # consecutive rows: a single one may be an outlier or a short dip
NARROW_STD = 0.4  # below this std a low rank may be healthy early in training
POINT_STD = 0.1  # isotropic embeddings have 1; if 99 % of the direction is shared, 0.1
LINE_RANK = 1.5  # one line or two clusters have rank 1, two equal directions 2
FEW_RANK = 2.0  # below that of a plane, for hundreds of images; healthy runs have >= 4
SATURATED = 0.9  # fraction of pairs without repulsion that the others cannot balance


class Health(enum.IntEnum):
    """Health of a run; larger values are worse."""

    HEALTHY = 0
    PARTIAL = 1
    COLLAPSED = 2


class Assessment(NamedTuple):
    """Health of a run and a sentence of advice; "" if there is no advice."""

    state: Health
    advice: str = ""


class Rule(NamedTuple):
    """A symptom of collapse in one metric.

    Attributes:
        state: health of a run that shows the symptom.
        metric: name of the metric.
        shows: whether a value of the metric shows the symptom.
        advice: advice to the user.
        excused: whether recent rows excuse the symptom; only until OPENING_STEPS.
    """

    state: Health
    metric: str
    shows: Callable[[float], bool]
    advice: str
    excused: Callable[[Sequence[Row]], bool] = lambda rows: False

    def holds(self, rows: Sequence[Row], recent: Sequence[Row]) -> bool:
        """Whether the symptom is present.

        Args:
            rows: rows of metrics, all of which must show the symptom.
            recent: latest rows, which may excuse it until OPENING_STEPS, for example
                because the spread of the embeddings grows.
        """
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
    "all images are embedded as one point; check that the targets have a "
    "stop-gradient, and lower optimizer.learning_rate or add a warm-up"
)
LINE = (
    "all embeddings lie on one line; check that the targets have a stop-gradient, and "
    "lower optimizer.learning_rate or add a warm-up"
)
FEW = (
    "embeddings use few of their dimensions; try stronger crop or color augmentation, "
    "or a lower optimizer.learning_rate"
)
SATURATION = (
    "LoGo's softplus is saturated, so the loss does not repel local crops; lower "
    "logo.regressor_learning_rate"
)
QUEUE_FILLS = (
    "the loss rises because the queue fills with keys, which are harder to distinguish "
    "than its initial random vectors; this is normal"
)
RULES = (  # the first matching rule decides
    Rule(Health.COLLAPSED, "health/std", lambda x: x < POINT_STD, POINT, _widens),
    Rule(Health.COLLAPSED, "health/rank", lambda x: x < LINE_RANK, LINE, _is_narrow),
    Rule(Health.PARTIAL, "health/rank", lambda x: x < FEW_RANK, FEW, _is_narrow),
    Rule(Health.PARTIAL, "health/saturation", lambda x: x > SATURATED, SATURATION),
)


def assess(rows: Sequence[Row]) -> Assessment:
    """Assesses the health of one seed from its latest rows of metrics.

    Args:
        rows: rows of metrics.jsonl, including `step`, oldest first. The last `PATIENCE`
            rows with health metrics are assessed, if all of them are after
            `WARMUP_STEPS`.

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
    """Whether the last row shows that all embeddings are near one point or one line.

    One row suffices, because a state that may have collapsed should not be saved.
    Earlier rows, if any, are used only to recognize a healthy start of training, in
    which the spread of the embeddings is small or grows.
    """
    return rows[-1]["step"] > WARMUP_STEPS and any(
        rule.holds(rows[-1:], rows) for rule in RULES if rule.state is Health.COLLAPSED
    )


class CollapseError(RuntimeError):
    """A run has collapsed and must not continue; `step` is its number of updates."""

    def __init__(self, step: int, advice: str):
        super().__init__(f"collapsed at step {step}: {advice}")
        self.step = step


class CollapseDetector:
    """Assesses a run row by row and reports each finding once.

    Args:
        policy: one of `POLICIES`.
        seeds: seeds that are trained in parallel; the worst health of all seeds counts.
        say: function that prints a finding, one line.
        warn: function that prints a collapse, one line; `say` if None.
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

        With the policies `stop` and `rollback`, suspicious states are not saved, so
        that all checkpoints are healthy.
        """
        if self._policy in ("log", "off"):
            return True
        return not any(suspicious([*rows]) for rows in self._rows if rows)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Assesses the run after a row of training metrics.

        Raises:
            CollapseError: if the run has collapsed and the policy is `stop` or
                `rollback`.
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
    """Returns the steps at which the run of a folder was rolled back, in order."""
    file = folder / ROLLBACKS_FILE
    return json.loads(file.read_text()) if file.exists() else []


def next_rollback(times: int, collapse: CollapseError) -> int:
    """Returns the number of the next rollback, counted from 1.

    Args:
        times: number of rollbacks so far.
        collapse: error that reports the collapse.

    Raises:
        CollapseError: `collapse`, if there were already `MOST_ROLLBACKS` rollbacks.
    """
    if times >= MOST_ROLLBACKS:
        raise collapse
    return times + 1


def record_rollback(folder: pathlib.Path, step: int) -> None:
    """Appends a rollback at the given step to the record in the run's folder.

    The record is on disk, so that a run that is killed and resumed uses the same crops
    and noise as the rolled-back run.
    """
    steps = [*rollbacks(folder), step]
    atomic.write_text(folder / ROLLBACKS_FILE, json.dumps(steps) + "\n")
