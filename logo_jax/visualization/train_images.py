"""Pictures of a run while it trains, on the boards that show its numbers."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from logo_jax.experiment import Experiment
from logo_jax.training.logging.metric_writer import (
    METRICS_FILE,
    MetricWriter,
    read_rows,
)


class ImageLogger:
    """Hangs crops with their boxes after the first line, curves after evaluations.

    Args:
        writer: that has the boards.
        folder: of the run.
        experiment: that is trained.
        has_crops: whether they hang there already.
    """

    def __init__(
        self,
        writer: MetricWriter,
        folder: Path,
        experiment: Experiment,
        *,
        has_crops: bool,
    ):
        self._writer = writer
        self._file = folder / METRICS_FILE
        self._experiment = experiment
        self._has_crops = has_crops

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Takes a line of metrics once written; an evaluation is one without a loss."""
        if not self._has_crops:
            self._writer.show(step, "crops", pixels(draw_crops(self._experiment)))
            self._has_crops = True
        if "loss" not in values:
            self._writer.show(step, "knn", pixels(draw_accuracy(self._file)))


# Imports below wait for the first picture: matplotlib takes longer than the first step.
def draw_crops(experiment: Experiment) -> bytes:
    """Some training images with the boxes of their crops, and the crops, as PNG."""
    from logo_jax.visualization.image_grids import crop_grid
    from logo_jax.visualization.run_figures import crop_examples

    one = experiment.spec.of_first_seed()
    return crop_grid("crops", crop_examples(one, experiment.shown)).png


def draw_accuracy(file: Path) -> bytes:
    """The accuracies that a metrics.jsonl has, over steps, as PNG."""
    from logo_jax.visualization import curves

    (picture,) = curves.plot_curves({"run": read_rows(file)}, [curves.ACCURACY])
    return picture.png


def pixels(png: bytes) -> np.ndarray:
    """Red, green, blue of a PNG, uint8 [h, w, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
