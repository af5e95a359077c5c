"""Trains what a config describes; the same command resumes where it stopped.

python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

import contextlib
import pathlib
import sys
import time
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from logo_jax import command, compose, signals, workdir
from logo_jax.checkpoints import Checkpoints
from logo_jax.metrics import METRICS_FILE, MetricWriter, Progress
from logo_jax.state import TrainState
from logo_jax.step import make_mesh
from logo_jax.train import DataError, train
from logo_jax.watch import MOST_ROLLBACKS, CollapseError, Watch, roll_back, rollbacks

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, FILE.py or FILE.py:VARIANT."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if absent.")
QUIET = flags.DEFINE_bool("quiet", False, "Nothing on the terminal but errors.")


def main(argv: Sequence[str]) -> None:
    """Builds, restores, trains."""
    del argv
    command.keep_compiled_code()
    folder = pathlib.Path(str(WORKDIR.value)).absolute()
    with (
        signals.Stop() as stop,
        command.input_errors((DataError, OSError)),  # a full disk, above all
        contextlib.ExitStack() as held,
    ):
        with command.input_errors():
            workdir.check(folder, CONFIG.value.to_dict())
            workdir.require_free(folder)
            experiment = compose.experiment(CONFIG.value, make_mesh())
            held.enter_context(workdir.locked(folder))
            workdir.claim(folder, CONFIG.value.to_dict())
            checkpoints = held.enter_context(Checkpoints(folder / "checkpoints"))
        try:
            while not attempt(experiment, checkpoints, folder, stop):
                pass
        except CollapseError as collapse:
            print("error:", collapse, file=sys.stderr)
            sys.exit(1)
        if stop.requested():
            stop.leave()


def attempt(
    experiment: compose.Experiment,
    checkpoints: Checkpoints,
    folder: pathlib.Path,
    stop: signals.Stop,
) -> bool:
    """Trains on from the newest checkpoint; False where the run was rolled back.

    Raises:
        CollapseError: where the run has collapsed and is not to try again.
    """
    with command.input_errors():
        experiment = experiment.rolled_back(len(rollbacks(folder)))
        state = experiment.init()
        start, state = checkpoints.restore_latest(state) or (0, state)
    try:
        run(experiment, state, start, checkpoints, folder, stop)
    except CollapseError as collapse:
        if experiment.description.monitor["health"] != "rollback":
            raise
        times = roll_back(folder, collapse)
        print(f"{collapse}; rollback {times} of {MOST_ROLLBACKS}", file=sys.stderr)
        return False
    return True


def run(
    experiment: compose.Experiment,
    state: TrainState,
    start: int,
    checkpoints: Checkpoints,
    folder: pathlib.Path,
    stop: signals.Stop,
) -> None:
    """Trains from a state to the end, and says what was written where."""
    plan, monitor = experiment.description.plan, experiment.monitor
    again = (folder / METRICS_FILE).exists()
    with command.input_errors():
        metrics = MetricWriter(folder, resume_step=start)
    policy = experiment.description.monitor["health"]
    with (
        metrics as writer,
        Progress(plan.num_steps, initial=start, quiet=QUIET.value) as progress,
    ):
        progress.say(experiment.loading)
        if start:
            progress.say(f"resumed from step {start} of {plan.num_steps}")
        elif again:
            progress.say(f"no checkpoint in {folder}: started from step 0 again")
        if not start and plan.floors and monitor:
            for name, value in monitor.floors(state).items():
                progress.say(f"floor: {name}, kNN {value:.1f} %")
        train(
            state,
            experiment.train_step,
            experiment.loader,
            plan,
            monitor=monitor,
            checkpoints=checkpoints,
            writer=writer,
            progress=progress,
            clock=time.perf_counter,
            stop=stop,
            watch=Watch(policy, plan.seeds, progress.say),
        )
        progress.say(f"wrote to {folder}: {', '.join(written(folder))}")


def written(folder: pathlib.Path) -> list[str]:
    """Names in the folder, folders with a slash."""
    return sorted(f"{file.name}{'/' * file.is_dir()}" for file in folder.iterdir())


if __name__ == "__main__":
    command.run(main, required=("config", "workdir"))
