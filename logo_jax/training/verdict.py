"""What the health numbers of recent lines amount to: a state, and a sentence of advice.

The thresholds stand between what was measured: healthy SimSiam-LoGo on photographs,
1,000 steps, had a std of 0.98 and a rank of 4.1 to 8.3; SimSiam without its
stop-gradient 0.65 to 0.89 and 0.9 to 1.1; MoCo that collapsed on noise a std that falls
from 0.05 to 0.03. Healthy MoCo on CIFAR-10 begins as a narrow cone that opens: from
step 100 to 420 its std was 0.06 to 0.25, and its rank 1.03 to 2.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence

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


class State(enum.IntEnum):
    """How a run fares; the larger, the worse."""

    HEALTHY = 0
    PARTIAL = 1
    COLLAPSED = 2


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a run fares, and what to do about it.

    Attributes:
        state: one of three.
        sentence: of advice; empty where there is nothing to say.
    """

    state: State
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

    state: State
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
        State.COLLAPSED,
        "health/std",
        lambda std: std < POINT_STD,
        "all images are embedded as one point; check that targets pass no gradient, "
        "and lower optimizer.learning_rate or add a warm-up",
        opens,
    ),
    Rule(
        State.COLLAPSED,
        "health/rank",
        lambda rank: rank < LINE_RANK,
        "all embeddings lie on one line; check that targets pass no gradient, and "
        "lower optimizer.learning_rate or add a warm-up",
        may_open,
    ),
    Rule(
        State.PARTIAL,
        "health/rank",
        lambda rank: rank < FEW_RANK,
        "embeddings use few of their dimensions; stronger crops or colour changes, or "
        "a lower optimizer.learning_rate, ask more of them",
        may_open,
    ),
    Rule(
        State.PARTIAL,
        "health/saturation",
        lambda share: share > SATURATED,
        "LoGo's softplus is saturated, so that local crops feel no repulsion; lower "
        "logo.regressor_learning_rate",
    ),
)
HEALTHY = Verdict(State.HEALTHY)
QUEUE_FILLS = Verdict(
    State.HEALTHY,
    "the loss rises because the queue fills with keys that are harder to tell apart "
    "than the random ones it began with: that is normal",
)


def judge(lines: Sequence[Line]) -> Verdict:
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
                return Verdict(rule.state, rule.advice)
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
        if rule.state is State.COLLAPSED
    )


def _rose_while_the_queue_filled(lines: Sequence[Line]) -> bool:
    if len(lines) < 2:
        return False
    before, after = lines[-2:]
    return before.get("health/queue_fill", 1.0) < 1 and after["loss"] > before["loss"]
