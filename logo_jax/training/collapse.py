"""Detects a collapse of the embeddings from lines of metrics, and acts on it.

The policy `log` reports what it finds. `stop` ends a run that has collapsed. `rollback`
restarts it from its last healthy checkpoint with other crops and noise, at most
`MOST_ROLLBACKS` times; the same crops would collapse again, because a run is
deterministic. Source: PaLM's restarts on other batches, Chowdhery et al. 2022, section
5.1, https://arxiv.org/abs/2204.02311.

The thresholds lie between measured values. Healthy SimSiam-LoGo on photographs, 1,000
steps, had a std of 0.98 and a rank of 4.1 to 8.3; SimSiam without its stop-gradient
0.65 to 0.89 and 0.9 to 1.1; MoCo that collapsed on noise had a std that falls from
0.05 to 0.03. Healthy MoCo on CIFAR-10 begins as a narrow cone that widens: from step
100 to 420 its std was 0.06 to 0.25, and its rank 1.03 to 2.
"""

import collections
import dataclasses
import enum
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

from logo_jax.training import atomic

Line = Mapping[str, float]

WARMUP_STEPS = 100  # networks start narrow and spread out: earlier lines prove nothing
OPENING_STEPS = 1000  # by which a narrow beginning must have opened
PATIENCE = 3  # lines in a row: one may be an unlucky batch, or a short dip
NARROW_STD = 0.4  # few directions of so narrow a cone may be a beginning
POINT_STD = 0.1  # 1 is isotropic; images that share 99 % of their direction have 0.1
LINE_RANK = 1.5  # a line or two clusters have 1, two even directions 2
FEW_RANK = (
    2.0  # less than a plane, for hundreds of images; healthy runs have 4 and more
)
SATURATED = 0.9  # of pairs feel no repulsion: the rest cannot make up for them


class Health(enum.IntEnum):
    """How a run fares; the larger, the worse."""

    HEALTHY = 0
    PARTIAL = 1
    COLLAPSED = 2


@dataclasses.dataclass(frozen=True)
class Assessment:
    """How a run fares, and what to do about it.

    Attributes:
        state: one of three.
        sentence: of advice; empty where there is nothing to say.
    """

    state: Health
    sentence: str = ""


def opens(lines: Sequence[Line]) -> bool:
    """Whether the cone of embeddings widens, early in training."""
    first, last = lines[0]["health/std"], lines[-1]["health/std"]
    return last > first and lines[-1]["step"] <= OPENING_STEPS


def may_open(lines: Sequence[Line]) -> bool:
    """Whether the cone of embeddings is narrow, early in training."""
    narrow = all(line["health/std"] < NARROW_STD for line in lines)
    return narrow and lines[-1]["step"] <= OPENING_STEPS


@dataclasses.dataclass(frozen=True)
class Rule:
    """A verdict, and its sign in lines of metrics.

    Attributes:
        state: the verdict's.
        name: of the number that shows it; without that number there is no sign.
        shows: whether a value of it is the sign.
        advice: the verdict's sentence.
        excused: whether lines that show it may be a healthy run's beginning.
    """

    state: Health
    name: str
    shows: Callable[[float], bool]
    advice: str
    excused: Callable[[Sequence[Line]], bool] = lambda lines: False

    def sign_in(self, lines: Sequence[Line]) -> bool:
        """Whether all lines have the sign and are not excused."""
        return self.shown_in(lines) and not self.excused(lines)

    def shown_in(self, lines: Sequence[Line]) -> bool:
        """Whether all lines have the sign; a number that is not finite has none."""
        values = [line.get(self.name) for line in lines]
        return all(value is not None and self.shows(value) for value in values)


RULES = (
    Rule(
        Health.COLLAPSED,
        "health/std",
        lambda std: std < POINT_STD,
        "all images are embedded as one point; check that targets pass no gradient, "
        "and lower optimizer.learning_rate or add a warm-up",
        opens,
    ),
    Rule(
        Health.COLLAPSED,
        "health/rank",
        lambda rank: rank < LINE_RANK,
        "all embeddings lie on one line; check that targets pass no gradient, and "
        "lower optimizer.learning_rate or add a warm-up",
        may_open,
    ),
    Rule(
        Health.PARTIAL,
        "health/rank",
        lambda rank: rank < FEW_RANK,
        "embeddings use few of their dimensions; stronger crops or colour changes, or "
        "a lower optimizer.learning_rate, ask more of them",
        may_open,
    ),
    Rule(
        Health.PARTIAL,
        "health/saturation",
        lambda share: share > SATURATED,
        "LoGo's softplus is saturated, so that local crops feel no repulsion; lower "
        "logo.regressor_learning_rate",
    ),
)
HEALTHY = Assessment(Health.HEALTHY)
QUEUE_FILLS = Assessment(
    Health.HEALTHY,
    "the loss rises because the queue fills with keys that are harder to tell apart "
    "than the random ones it began with: that is normal",
)


def assess(lines: Sequence[Line]) -> Assessment:
    """The verdict on a run by its latest lines of metrics.

    A rule speaks where its sign shows in each of the last `PATIENCE` lines, all after
    `WARMUP_STEPS`; the first that does is the verdict.

    Args:
        lines: as in metrics.jsonl, each with its `step`, oldest first; those with
            health numbers count.

    >>> judge([{"step": s, "health/std": 0.01} for s in (120, 140, 160)]).state.name
    'COLLAPSED'
    >>> judge([{"step": s, "health/std": 0.01} for s in (60, 80, 100)]).state.name
    'HEALTHY'
    """
    recent = [line for line in lines if "health/std" in line][-PATIENCE:]
    if len(recent) == PATIENCE and recent[0]["step"] > WARMUP_STEPS:
        for rule in RULES:
            if rule.sign_in(recent):
                return Assessment(rule.state, rule.advice)
    return QUEUE_FILLS if _rose_while_the_queue_filled(recent) else HEALTHY


def suspicious(lines: Sequence[Line]) -> bool:
    """Whether the last line has a sign of collapse, be it as yet the only one.

    Args:
        lines: the latest, oldest first; they may excuse it, as in `judge`.
    """
    *_, last = lines
    return last["step"] > WARMUP_STEPS and any(
        rule.shown_in([last]) and not rule.excused(lines)
        for rule in RULES
        if rule.state is Health.COLLAPSED
    )


def _rose_while_the_queue_filled(lines: Sequence[Line]) -> bool:
    if len(lines) < 2:
        return False
    before, after = lines[-2:]
    return before.get("health/queue_fill", 1.0) < 1 and after["loss"] > before["loss"]


POLICIES = ("log", "stop", "rollback", "off")
MOST_ROLLBACKS = 3
ROLLBACKS_FILE = "rollbacks.json"


class CollapseError(RuntimeError):
    """A run has collapsed and is not to go on.

    Attributes:
        step: updates done when that was certain.
    """

    def __init__(self, step: int, verdict: Assessment):
        super().__init__(f"collapsed at step {step}: {verdict.sentence}")
        self.step = step


class CollapseDetector:
    """Judges a run line by line; says each finding once.

    Args:
        policy: one of `POLICIES`.
        seeds: trained at once; the one that fares worst speaks for all.
        say: gets a finding, one line.
        warn: gets a collapse, which `say` gets where this is None.
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
        self._say = say
        self._warn = warn or say
        self._lines: collections.deque[dict[str, float]]
        self._lines = collections.deque(maxlen=PATIENCE)
        self._state = Health.HEALTHY
        self._said = {""}

    @property
    def allows_checkpoint(self) -> bool:
        """Whether a checkpoint of the newest line's state may be kept.

        Under `stop` and `rollback` not where it shows a sign of collapse, so that all
        checkpoints are healthy ones.
        """
        if self._policy in ("log", "off") or not self._lines:
            return True
        return not any(map(suspicious, self._lines_of_seeds()))

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the line of metrics that was written at a step.

        Raises:
            CollapseError: where the run has collapsed and the policy is not `log`.
        """
        if self._policy == "off":
            return
        self._lines.append({"step": step, **values})
        verdict = self._worst()
        if verdict.state is Health.COLLAPSED and self._policy != "log":
            raise CollapseError(step, verdict)
        if verdict.state != self._state or verdict.sentence not in self._said:
            finding = (f"step {step}", verdict.state.name.lower(), verdict.sentence)
            tell = self._warn if verdict.state is Health.COLLAPSED else self._say
            tell(": ".join(filter(None, finding)))
        self._state = verdict.state
        self._said.add(verdict.sentence)

    def _worst(self):
        return max(map(assess, self._lines_of_seeds()), key=lambda v: v.state)

    def _lines_of_seeds(self):
        each = [by_each_seed(line, self._seeds) for line in self._lines]
        return zip(*each, strict=True)


def by_each_seed(
    line: Mapping[str, float], seeds: Sequence[int]
) -> list[Mapping[str, float]]:
    """The line as each of several seeds alone has it; of one seed the line itself.

    >>> by_each_seed({"step": 9, "loss": 2.0, "loss/seed_4": 1.0}, seeds=[4, 5])[0]
    {'step': 9, 'loss': 1.0}
    """
    if len(seeds) == 1:
        return [line]
    ends = {seed: f"/seed_{seed}" for seed in seeds}
    return [
        {"step": line["step"]}
        | {name.removesuffix(end): x for name, x in line.items() if name.endswith(end)}
        for end in ends.values()
    ]


def rollbacks(folder: pathlib.Path) -> list[int]:
    """Steps at which the run of a folder has been rolled back, in order."""
    file = folder / ROLLBACKS_FILE
    return json.loads(file.read_text()) if file.exists() else []


def next_rollback(times: int, collapse: CollapseError) -> int:
    """The number of the rollback that follows so many, counted from 1.

    Raises:
        CollapseError: the one given, where there have been `MOST_ROLLBACKS`.
    """
    if times >= MOST_ROLLBACKS:
        raise collapse
    return times + 1


def record_rollback(folder: pathlib.Path, step: int) -> None:
    """Records one more rollback, from a step, in the run's folder.

    What is recorded survives a kill, and a resumed run draws as the rolled-back one.
    """
    steps = [*rollbacks(folder), step]
    atomic.write_text(folder / ROLLBACKS_FILE, json.dumps(steps) + "\n")
