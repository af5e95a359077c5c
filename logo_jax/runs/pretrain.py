"""Training from Python: `logo_jax.pretrain`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from logo_jax import configs
from logo_jax.data.load import (
    OF_PATH,
    ExperimentData,
    load_arrays,
    locate_dataset,
    require_images,
)
from logo_jax.experiment import parse
from logo_jax.runs.run import Run
from logo_jax.runs.training import as_input_errors, default_workdir, open_run
from logo_jax.storage.paths import as_path, parse_paths
from logo_jax.training.preemption import InterruptHandler

FOLDER_CONFIG = "folder"

TrainImages: TypeAlias = (
    str | Path | list[str | Path] | np.ndarray | tuple[np.ndarray, np.ndarray]
)


def pretrain(
    images: TrainImages | None = None,
    *,
    config: str | Mapping[str, Any] | None = None,
    workdir: str | Path | None = None,
    quiet: bool = False,
    **fields: Any,
) -> Run:
    """Trains an encoder without labels; the same call resumes a run.

    This is what `python -m logo_jax.main` does: with the same config, the same fields
    and the same folder, one resumes what the other began, with the same numbers.

    Ctrl-C, or an interrupt of the notebook's kernel, ends the training after the
    current step. The state is saved and the run is returned; the same call resumes it.
    A second interrupt raises KeyboardInterrupt. SIGTERM is handled in the same way, and
    then sent again.

    Args:
        images: the training images: a folder of images, a list of images such as
            labels.csv, several of these as a Python list, a folder with train.npz, a
            name of TFDS, a uint8 array [n, h, w, 3] or a pair of such an array and
            integer labels [n]. If None, the images that the config's data group
            selects. With "data.channels" or "data.dtype", arrays may have any number
            of channels, and values of 8 bits, 16 bits or float32.
            For kNN accuracy during training, hold out labeled images by
            `**{"data.val_size": 1000}`, or have a test set in the folder.
        config: name of a config, as for `--config`, such as "cifar10_moco:logo"; a
            ConfigDict; or the config of a run. If None, "folder": SimSiam-LoGo with
            a batch size, epochs and sizes of crops that are chosen from the images and
            the memory.
        workdir: folder of the run; runs/<config>_<variant> if None, which is possible
            only for the name of a config and without `images`.
        quiet: whether only errors and collapses are printed.
        **fields: new values of config fields by dotted name, as for --config.FIELD,
            such as `**{"train.num_epochs": 50}`. A field that has an import path, such
            as "encoder.backbone", also takes the function or class itself.

    Returns:
        The run, complete or interrupted: its metrics, encoder and report.

    Raises:
        InputError: for bad input, corrupt data or a full disk. It is a ValueError, and
            its message is the line that the command prints.
        CollapseError: if the run has collapsed and is not to be started again.
        FloatingPointError: if a loss is not finite.
    """
    with as_input_errors():
        values, given = _with_images(images, config, fields)
        folder = _folder(workdir, config, images)
    stop = InterruptHandler()
    with open_run(values, folder, quiet=quiet, images=given) as run, stop:
        run.train(stop)
        if stop.requested() and not quiet:
            print(stop.last_line("repeat the call"), file=sys.stderr)
    return Run(folder, given)


def _with_images(
    images: TrainImages | None,
    config: str | Mapping[str, Any] | None,
    fields: Mapping[str, Any],
) -> tuple[dict[str, Any], ExperimentData | None]:
    """Returns the config, and the images if they are in memory."""
    if images is None and config is None:
        raise ValueError(
            "images or config must be given; use e.g. pretrain('photos/', "
            "workdir='runs/photos') or pretrain(config='quickstart')"
        )
    name = FOLDER_CONFIG if config is None else config
    chosen = configs.load(name, fields).to_dict()
    data, given = chosen["data"], None
    if isinstance(images, list) and images and isinstance(images[0], str | Path):
        images = _several(images)
    if isinstance(images, str | Path):
        require_images(images)
        if _are_other(images, data["path"]):  # then the config's lists are, too
            data |= {x: "" for x in OF_PATH if f"data.{x}" not in fields}
        data |= locate_dataset(str(images))
    elif images is not None:
        pixels: Any
        pixels, labels = images if isinstance(images, tuple) else (images, None)
        decoding = parse(chosen).data.location.decoding
        location, given = load_arrays(pixels, labels, data["val_size"], decoding)
        data |= {"source": location.source, "name": location.name}
    return chosen, given


def _are_other(images: str | Path, path: str) -> bool:
    """Whether a config has a path, and it is not that of the images."""
    own, given = (
        [as_path(x).absolute() for x in parse_paths(text)]
        for text in (path, str(images))
    )
    return bool(path) and own != given


def _several(paths: list[str | Path]) -> str:
    """Returns several paths as in a config, in which commas divide them."""
    if named := [str(path) for path in paths if "," in str(path)]:
        raise ValueError(
            f"{named[0]}: its name must have no comma if it is one of several; rename "
            "it, or link to it"
        )
    return ",".join(map(str, paths))


def _folder(workdir: str | Path | None, config: Any, images: Any) -> Path:
    if workdir is not None and str(workdir):
        return as_path(workdir)
    if workdir is None and images is None and isinstance(config, str):
        return default_workdir(config)
    raise ValueError(
        f"workdir={workdir!r} must be the folder of the run; use e.g. 'runs/photos'"
    )
