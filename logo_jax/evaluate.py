"""Evaluates the newest checkpoint of a run by a named protocol.

python -m logo_jax.evaluate --workdir=runs/quickstart --protocol=knn [--dataset=DIR]
"""

import pathlib

from logo_jax import command, compose, schema, step, workdir
from logo_jax.checkpoints import Checkpoints
from logo_jax.data import sources
from logo_jax.metrics import by_seed

PROTOCOLS = ("knn",)


def main() -> None:
    """Restores, evaluates, prints one line a number."""
    parser = command.OneLineParser(prog="logo_jax.evaluate", description=__doc__)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--protocol", default="knn", choices=PROTOCOLS)
    parser.add_argument(
        "--dataset",
        default="",
        help="another one than the run's: a folder of images, one of train.npz and "
        "test.npz, or a TFDS name",
    )
    parser.add_argument(
        "--resize", type=int, help="short side, pixels; default the run's; 0: as it is"
    )
    parser.add_argument("--crop", type=int, help="side of the centre square")
    flags = parser.parse_args()
    command.keep_compiled_code()
    folder = flags.workdir.absolute()
    changes = {
        name: value
        for name in ("resize", "crop")
        if (value := getattr(flags, name)) is not None
    }
    with command.input_errors():
        step_number, values = evaluate(folder, flags.dataset, **changes)
    of = f" on {flags.dataset}" if flags.dataset else ""
    print(f"step {step_number} of {folder}, protocol {flags.protocol}{of}")
    for name, value in values.items():
        print(f"{name:32s} {value:6.2f} %")


def evaluate(
    folder: pathlib.Path, dataset: str = "", **monitor_fields: int
) -> tuple[int, dict[str, float]]:
    """The step of the newest checkpoint and its accuracies by name.

    Args:
        folder: of the run.
        dataset: folder or TFDS name of another data set than the run's; "": its own.
        **monitor_fields: of the config, over the run's own.

    Raises:
        FileNotFoundError: where the folder holds no run, or its data are gone.
        ValueError: where there is no checkpoint, or none without damage, or no labels.
    """
    config = workdir.read_config(folder)
    schema.check(config)
    config["monitor"] |= monitor_fields
    if dataset:
        config["data"] |= {"path": "", "classes": ""} | sources.locate(dataset)
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
