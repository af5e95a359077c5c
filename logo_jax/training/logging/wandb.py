"""Logs to Weights & Biases, if `config.monitor.wandb` names a project."""

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
    """A run at Weights & Biases; a resumed run logs to the same one.

    Its id is kept in the folder. Each row has its step as a number, because W&B's own
    step cannot decrease; so rows that a resumed run measures again are there twice.

    Args:
        workdir: the run's folder; it exists.
        project: of the run; made if absent.
        config: of the run, nested mappings.
        quiet: prints nothing.

    Raises:
        ValueError: if W&B refuses the login.
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

    def log_image(
        self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]
    ) -> None:
        """Logs an image."""
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def close(self, failed: bool) -> None:
        """Uploads the remaining rows, and marks the run as finished or failed."""
        self._run.finish(exit_code=int(failed))


def require_wandb(project: str) -> None:
    """Checks that the package wandb is installed if a project is given.

    Args:
        project: at W&B; "": none.

    Raises:
        ValueError: if the package is missing.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.monitor.wandb={project!r} needs the package wandb; "
            "pip install wandb, or leave the field empty"
        )
