"""Image logging during training: crops and accuracy curves."""

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from logo_jax.experiment import Experiment
from logo_jax.training.logging.metric_writer import (
    MetricWriter,
    Row,
    is_evaluation,
)
from logo_jax.visualization.crop_grid import crop_grid
from logo_jax.visualization.run_crops import crop_examples


class ImageLogger:
    """Logs an image of crops once, and a plot of accuracies after each evaluation.

    The image of crops is logged after the first row of metrics, and shows the boxes of
    the crops, too. It is drawn before the first step, as drawing takes seconds, in
    which a signal would find a step that is not saved. The plot has the accuracies of
    kNN and of the online linear classifier over steps.

    Args:
        writer: metric writer, which sends images to the loggers of the run.
        experiment: experiment that is trained.
        has_crops: whether the crops have been logged already, by an earlier start of
            the run; they are then not logged again.
    """

    def __init__(
        self,
        writer: MetricWriter,
        experiment: Experiment,
        *,
        has_crops: bool,
    ):
        self._writer = writer
        self._crops = None if has_crops else pixels(draw_crops(experiment))

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the images for a row of metrics that has been written."""
        if self._crops is not None:
            self._writer.log_image(step, "crops", self._crops)
            self._crops = None
        if is_evaluation(values):
            self._writer.log_image(
                step, "knn", pixels(draw_accuracy(self._writer.rows()))
            )


def draw_crops(experiment: Experiment) -> bytes:
    """Returns a PNG of some training images, their crops and the boxes of the crops."""
    one = experiment.spec.of_first_seed()
    return crop_grid("crops", crop_examples(one, experiment.shown)).png


def draw_accuracy(rows: list[Row]) -> bytes:
    """Returns a PNG of the accuracies in the rows of a metrics.jsonl over steps."""
    from logo_jax.visualization import curves  # matplotlib takes long to import

    (figure,) = curves.plot_curves({"run": rows}, [curves.ACCURACY])
    return figure.png


def pixels(png: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the RGB pixels of a PNG file."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
