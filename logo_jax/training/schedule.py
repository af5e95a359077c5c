"""How long a run is, and how often what is done."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainingSchedule:
    """How long, and how often what.

    Attributes:
        num_steps: updates in all.
        steps_per_epoch: for the progress line.
        log_every_steps: between lines of metrics, each the mean since the last.
        checkpoint_every_steps: between checkpoints; there is one at the end too.
        knn_every_steps: between kNN evaluations; 0: only at the end.
        trivial_baselines: whether to print what takes no learning to reach, first.
        seeds: trained at once.
    """

    num_steps: int
    steps_per_epoch: int
    log_every_steps: int
    checkpoint_every_steps: int
    knn_every_steps: int
    trivial_baselines: bool
    seeds: tuple[int, ...] = (0,)

    def logs(self, step: int) -> bool:
        """Whether a line is due after this step."""
        return self._is_due(step, self.log_every_steps)

    def evaluates(self, step: int) -> bool:
        """Whether the state after this step is evaluated."""
        return self._is_due(step, self.knn_every_steps)

    def saves(self, step: int) -> bool:
        """Whether the state after this step is saved, even if it is not evaluated."""
        return self._is_due(step, self.checkpoint_every_steps)

    def _is_due(self, step, every):
        """Due after the last step, and after every so many (0: only after the last)."""
        return step == self.num_steps or (every > 0 and step > 0 and step % every == 0)
