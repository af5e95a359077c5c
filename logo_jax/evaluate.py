"""Evaluates the newest checkpoint of a run by a named protocol.

python -m logo_jax.evaluate --workdir=runs/quickstart --protocol=knn
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from logo_jax import build, command, step, workdir
from logo_jax.checkpoints import Checkpoints

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
PROTOCOL = flags.DEFINE_enum("protocol", "knn", ["knn"], "What to measure.")


def main(argv: Sequence[str]) -> None:
    """Restores, evaluates, prints one line a number."""
    del argv
    command.keep_compiled_code()
    folder = pathlib.Path(str(WORKDIR.value)).absolute()
    with command.input_errors():
        step_number, values = evaluate(folder)
    print(f"step {step_number} of {folder}, protocol {PROTOCOL.value}")
    for name, value in values.items():
        print(f"{name:32s} {value:6.2f} %")


def evaluate(folder: pathlib.Path) -> tuple[int, dict[str, float]]:
    """The step of the newest checkpoint and its accuracies by name.

    Raises:
        FileNotFoundError: where the folder holds no run, or its data are gone.
        ValueError: where there is no checkpoint, or none without damage, or no labels.
    """
    config = workdir.read_config(folder)
    mesh = step.make_mesh()
    description = build.describe(config, num_devices=mesh.devices.size)
    monitor = build.knn_monitor(description, *build.load_data(description), mesh)
    if monitor is None:
        raise ValueError(
            "kNN needs labels for the training and the test set; this data set has none"
        )
    like = step.replicate(description.init(), mesh)
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        found = checkpoints.restore_latest(like)
    if found is None:
        raise ValueError(f"{folder} has no checkpoint yet; train it first")
    step_number, state = found
    return step_number, monitor(state)


if __name__ == "__main__":
    command.run(main, required=("workdir",))
