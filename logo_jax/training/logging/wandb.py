"""Logging to Weights & Biases, if `config.monitor.wandb` names a project."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from logo_jax.storage.paths import in_bucket
from logo_jax.training import atomic

ID_FILE = "wandb_id"


class WandbLogger:
    """Logs to a run of Weights & Biases; a resumed run continues the same W&B run.

    The id of the W&B run is stored in the run's folder. The step is logged as a metric,
    because W&B's own step cannot decrease. Therefore W&B has two copies of the rows
    that a resumed run measures again.

    Args:
        workdir: folder of the run, which must exist.
        project: W&B project of the run; created if it does not exist.
        config: config of the run, as nested mappings.
        quiet: whether to suppress W&B's output.

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
                dir=None if in_bucket(workdir) else str(workdir),
                config=dict(config),
                settings=self._wandb.Settings(silent=quiet, console="off"),
            )
        except self._wandb.Error as error:
            raise ValueError(
                f"config.monitor.wandb={project!r}: {error}; run `wandb login`, set "
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
        """Uploads the remaining rows and marks the run as finished or failed."""
        self._run.finish(exit_code=int(failed))


def require_wandb(project: str) -> None:
    """Raises an error if a project is given but the package wandb is missing.

    Args:
        project: W&B project; "" for none.

    Raises:
        ValueError: if the package is missing.
    """
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"config.monitor.wandb={project!r} needs the package wandb; "
            "pip install wandb, or leave the field empty"
        )
