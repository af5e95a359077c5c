"""Trains what a config describes; the same command resumes where it stopped.

python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

import pathlib
import time
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from logo_jax import command, compose, workdir
from logo_jax.checkpoints import Checkpoints
from logo_jax.metrics import MetricWriter, Progress
from logo_jax.state import TrainState
from logo_jax.step import make_mesh
from logo_jax.train import DataError, train

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
    with command.input_errors():
        workdir.check(folder, CONFIG.value.to_dict())
        experiment = compose.experiment(CONFIG.value, make_mesh())
        workdir.claim(folder, CONFIG.value.to_dict())
        checkpoints = Checkpoints(folder / "checkpoints")
    with checkpoints:
        with command.input_errors():
            state = experiment.init()
            found = checkpoints.restore_latest(state)
        start, state = found or (0, state)
        run(experiment, state, start, checkpoints, folder)


def run(
    experiment: compose.Experiment,
    state: TrainState,
    start: int,
    checkpoints: Checkpoints,
    folder: pathlib.Path,
) -> None:
    """Trains from a state to the end, and says what was written where."""
    plan, monitor = experiment.description.plan, experiment.monitor
    with command.input_errors():
        metrics = MetricWriter(folder, resume_step=start)
    with (
        metrics as writer,
        Progress(plan.num_steps, initial=start, quiet=QUIET.value) as progress,
    ):
        progress.say(experiment.loading)
        if start:
            progress.say(f"resumed from step {start} of {plan.num_steps}")
        elif plan.floors and monitor:
            for name, value in monitor.floors(state).items():
                progress.say(f"floor: {name}, kNN {value:.1f} %")
        with command.input_errors((DataError,)):
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
            )
        progress.say(f"wrote to {folder}: {', '.join(written(folder))}")


def written(folder: pathlib.Path) -> list[str]:
    """Names in the folder, folders with a slash."""
    return sorted(f"{file.name}{'/' * file.is_dir()}" for file in folder.iterdir())


if __name__ == "__main__":
    command.run(main, required=("config", "workdir"))
