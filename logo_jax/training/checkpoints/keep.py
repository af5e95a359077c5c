"""Which checkpoints of a run are kept."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

NEWEST = 3


@dataclasses.dataclass(frozen=True)
class Keep:
    """The checkpoints that are not deleted; a preservation policy of Orbax.

    Orbax asks it when a new checkpoint is written, and deletes the others when the new
    one is complete.

    Attributes:
        newest: number of newest checkpoints to keep, >= 1.
        every_steps: checkpoints of multiples of this step are kept; 0: none.
        best: function from the steps of all checkpoints to the one to keep, or to None.

    Raises:
        ValueError: if `newest` is not positive.
    """

    newest: int = NEWEST
    every_steps: int = 0
    best: Callable[[Sequence[int]], int | None] = lambda steps: None

    def __post_init__(self):
        if self.newest < 1:
            raise ValueError(f"newest={self.newest} must be at least 1, e.g. {NEWEST}")

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        """Returns for each checkpoint, oldest first, whether it is kept."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self.newest :], self.best(steps)}
        every = self.every_steps
        return [step in kept or bool(every and step % every == 0) for step in steps]
