"""Boards that show a run to people while it trains; TensorBoard is always there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter


class Board(Protocol):
    """Shows the numbers of a run, and pictures beside them."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes numbers by name, all finite."""
        ...

    def show(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Takes the picture of a series at a step."""
        ...

    def close(self, failed: bool) -> None:
        """Ends, well or with an error."""
        ...


class TensorBoard:
    """Files in `tensorboard/`; what will be measured again is dropped by its readers.

    Args:
        workdir: the run's folder.
        resume_step: updates done so far.
    """

    def __init__(self, workdir: Path, resume_step: int):
        self._file = SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=resume_step + 1 if resume_step else 0,
            flush_secs=10,
            # Files are named by the second: two quick starts must not share one.
            filename_suffix=f".from{resume_step}",
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to the curve of each name."""
        for name, value in values.items():
            self._file.add_scalar(name, value, step)

    def show(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds an image."""
        self._file.add_image(name, pixels, step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Finishes the file."""
        del failed
        self._file.close()
