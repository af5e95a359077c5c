"""Training schedule: number of steps; logging, checkpoint and evaluation intervals."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainingSchedule:
    """Number of training steps, and intervals of logging, checkpoints and evaluations.

    Attributes:
        num_steps: total number of updates.
        steps_per_epoch: number of steps per epoch, for the progress line.
        log_every_steps: interval of rows of metrics; each row is the mean over the
            steps since the previous row.
        checkpoint_every_steps: interval of checkpoints; the last state is also saved.
        knn_every_steps: interval of kNN evaluations; 0 to evaluate only after the last
            step.
        trivial_baselines: whether the first evaluation includes kNN on raw pixels, mean
            colors and the untrained network.
        seeds: seeds that are trained in parallel.
        keep_every_steps: interval of checkpoints that are never deleted; 0: none.
    """

    num_steps: int
    steps_per_epoch: int
    log_every_steps: int
    checkpoint_every_steps: int
    knn_every_steps: int
    trivial_baselines: bool
    seeds: tuple[int, ...] = (0,)
    keep_every_steps: int = 0

    @property
    def first_evaluation(self) -> int:
        """The first step after which the state is evaluated."""
        return min(self.knn_every_steps or self.num_steps, self.num_steps)

    def logs(self, step: int) -> bool:
        """Whether a row of metrics is written after this step."""
        return self._is_due(step, self.log_every_steps)

    def evaluates(self, step: int) -> bool:
        """Whether the state after this step is saved and then evaluated."""
        return self._is_due(step, self.knn_every_steps)

    def saves(self, step: int) -> bool:
        """Whether the state after this step is saved, even if it is not evaluated."""
        intervals = (self.checkpoint_every_steps, self.keep_every_steps)
        return any(self._is_due(step, every) for every in intervals)

    def _is_due(self, step, every):
        """Whether step is the last one or, if `every` > 0, a multiple of `every`."""
        return step == self.num_steps or (every > 0 and step > 0 and step % every == 0)
