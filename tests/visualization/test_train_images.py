"""Image logging during training: which images are logged, and when."""

import jax
import numpy as np

from logo_jax.experiment import make_experiment
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.visualization.rendered import COLORS
from logo_jax.visualization.train_images import ImageLogger
from tests.commands.test_main import fixture_arrays, tiny_config  # noqa: F401

KNN = {"knn/k3_t0.1/top1": 40.0}


class Kept:
    """A logger that keeps its images."""

    def __init__(self):
        self.images = []

    def write(self, step, values):
        del step, values

    def log_image(self, step, name, pixels):
        self.images.append((step, name, pixels))

    def close(self, failed):
        del failed


def logged(experiment, folder, *, has_crops):
    """The images logged for two rows of training metrics and one evaluation."""
    kept = Kept()
    with MetricWriter(folder, resume_step=0, loggers=[kept]) as writer:
        log_images = ImageLogger(writer, experiment, has_crops=has_crops)
        for step, values in ((1, {"loss": 2.0}), (2, {"loss": 1.0}), (2, KNN)):
            writer.write(step, values)
            log_images(step, values)
    return kept.images


def has_color(pixels, color):
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((pixels == rgb).all(-1).any())


def test_crops_are_logged_after_the_first_row_and_curves_after_an_evaluation(
    arrays, tmp_path
):
    changes = {"seeds": 2, "monitor.resize": 0}
    config = tiny_config("cifar10_moco", "logo", arrays, **changes)
    experiment = make_experiment(config, make_mesh(jax.devices()[:1]))
    (crops, curve) = logged(experiment, tmp_path / "new", has_crops=False)
    assert crops[:2] == (1, "crops")
    assert all(has_color(crops[2], color) for color in COLORS[:4])  # the four boxes
    assert curve[:2] == (2, "knn")
    assert has_color(curve[2], COLORS[0])
    assert [x[:2] for x in logged(experiment, tmp_path / "old", has_crops=True)] == [
        (2, "knn")
    ]
