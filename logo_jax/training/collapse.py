"""The doctor while a run trains: judges each line of metrics and keeps to a policy.

`log` says what it finds; `stop` ends a run that has collapsed; `rollback` lets it start
again from its last healthy checkpoint with other crops and noise, at most
`MOST_ROLLBACKS` times. The same crops would collapse again: a run is deterministic.
Source: PaLM's restarts on other batches, Chowdhery et al. 2022, section 5.1,
https://arxiv.org/abs/2204.02311.
"""

import collections
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from logo_jax.training.verdict import PATIENCE, State, Verdict, judge, suspicious

POLICIES = ("log", "stop", "rollback", "off")
MOST_ROLLBACKS = 3
ROLLBACKS_FILE = "rollbacks.json"


class CollapseError(RuntimeError):
    """A run has collapsed and is not to go on.

    Attributes:
        step: updates done when that was certain.
    """

    def __init__(self, step: int, verdict: Verdict):
        super().__init__(f"collapsed at step {step}: {verdict.sentence}")
        self.step = step


class Watch:
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
        self._state = State.HEALTHY
        self._said = {""}

    @property
    def trusts(self) -> bool:
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
        if verdict.state is State.COLLAPSED and self._policy != "log":
            raise CollapseError(step, verdict)
        if verdict.state != self._state or verdict.sentence not in self._said:
            finding = (f"step {step}", verdict.state.name.lower(), verdict.sentence)
            tell = self._warn if verdict.state is State.COLLAPSED else self._say
            tell(": ".join(filter(None, finding)))
        self._state = verdict.state
        self._said.add(verdict.sentence)

    def _worst(self):
        return max(map(judge, self._lines_of_seeds()), key=lambda v: v.state)

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
    partial = folder / f"{ROLLBACKS_FILE}.partial"
    partial.write_text(json.dumps(steps) + "\n")
    os.replace(partial, folder / ROLLBACKS_FILE)
