"""Training schedule: number of steps; logging, checkpoint and evaluation intervals."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainingSchedule:
    """How long a run trains, and after which steps it logs, saves and evaluates.

    Attributes:
        num_steps: number of updates in all.
        steps_per_epoch: for the epoch on the progress line.
        log_every_steps: interval of rows of metrics, each the mean since the last.
        checkpoint_every_steps: interval of checkpoints; the last state is saved too.
        knn_every_steps: interval of kNN evaluations; 0: only after the last step.
        trivial_baselines: whether to evaluate baselines without training first.
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
        """Whether a row of metrics is written after this step."""
        return self._is_due(step, self.log_every_steps)

    def evaluates(self, step: int) -> bool:
        """Whether the state after this step is evaluated, and saved before."""
        return self._is_due(step, self.knn_every_steps)

    def saves(self, step: int) -> bool:
        """Whether the state after this step is saved, even if it is not evaluated."""
        return self._is_due(step, self.checkpoint_every_steps)

    def _is_due(self, step, every):
        """Due after the last step, and at multiples of `every` unless it is 0."""
        return step == self.num_steps or (every > 0 and step > 0 and step % every == 0)
