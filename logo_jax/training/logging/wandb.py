"""A run on Weights & Biases, where its config asks for it."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from logo_jax.training import atomic

ID_FILE = "wandb_id"


class WandbLogger:
    """A run at Weights & Biases, the same one after each start in a folder.

    Its id is kept in the folder. Steps are a number of each row, not W&B's own count,
    which refuses to go back: what a resumed run measures again is there twice.

    Args:
        workdir: the run's folder; there.
        project: that the run belongs to; made if absent.
        config: of the run, nested mappings.
        quiet: prints nothing.

    Raises:
        ValueError: where W&B does not let it in.
    """

    def __init__(
        self, workdir: Path, project: str, config: Mapping[str, Any], *, quiet: bool
    ):
        self._wandb: Any = importlib.import_module("wandb")
        known = workdir / ID_FILE
        try:
            self._run = self._wandb.init(
                project=project,
                id=known.read_text().strip() if known.exists() else None,
                resume="allow",
                name=workdir.name,
                dir=str(workdir),
                config=dict(config),
                settings=self._wandb.Settings(silent=quiet, console="off"),
            )
        except self._wandb.Error as error:
            raise ValueError(
                f"config.monitor.wandb={project!r}: {error}; say `wandb login`, or set "
                "WANDB_MODE=offline, or leave the field empty"
            ) from error
        atomic.write_text(known, f"{self._run.id}\n")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a row."""
        self._run.log({"step": step, **values})

    def show(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Logs an image."""
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def close(self, failed: bool) -> None:
        """Uploads what is left, and says how the run ended."""
        self._run.finish(exit_code=int(failed))


def require_wandb(project: str) -> None:
    """Refuses a project of W&B where its package is missing, before work is done.

    Args:
        project: "": none is asked for.

    Raises:
        ValueError: where it is missing.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.monitor.wandb={project!r} needs the package wandb; "
            "pip install wandb, or leave the field empty"
        )
