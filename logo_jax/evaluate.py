"""Evaluates the newest checkpoint of a run by a named protocol.

python -m logo_jax.evaluate --workdir=runs/quickstart --protocol=knn
"""

import pathlib

from logo_jax import command, compose, step, workdir
from logo_jax.checkpoints import Checkpoints
from logo_jax.metrics import by_seed

PROTOCOLS = ("knn",)


def main() -> None:
    """Restores, evaluates, prints one line a number."""
    parser = command.OneLineParser(prog="logo_jax.evaluate", description=__doc__)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--protocol", default="knn", choices=PROTOCOLS)
    flags = parser.parse_args()
    command.keep_compiled_code()
    folder = flags.workdir.absolute()
    with command.input_errors():
        step_number, values = evaluate(folder)
    print(f"step {step_number} of {folder}, protocol {flags.protocol}")
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
    description = compose.describe(config, num_devices=mesh.devices.size)
    data = compose.load_data(description.data)
    monitor = compose.knn_monitor(description, data, mesh)
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
    return step_number, by_seed(monitor(state), description.plan.seeds)


if __name__ == "__main__":
    main()
