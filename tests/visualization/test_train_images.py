"""Pictures of a run while it trains: which, when, and that something is on them."""

import jax
import numpy as np

from logo_jax.experiment import make_experiment
from logo_jax.parallel.mesh import make_mesh
from logo_jax.training.logging.metric_writer import MetricWriter
from logo_jax.visualization.figure import COLOURS
from logo_jax.visualization.train_images import ImageLogger
from tests.commands.test_main import fixture_arrays, tiny_config  # noqa: F401

KNN = {"knn/k3_t0.1/top1": 40.0}


class Kept:
    """A board that keeps what it is shown."""

    def __init__(self):
        self.shown = []

    def write(self, step, values):
        del step, values

    def show(self, step, name, pixels):
        self.shown.append((step, name, pixels))

    def close(self, failed):
        del failed


def shown(experiment, folder, *, has_crops):
    """What hangs on a board after two lines, the second evaluated too."""
    board = Kept()
    with MetricWriter(folder, resume_step=0, boards=[board]) as writer:
        gallery = ImageLogger(writer, folder, experiment, has_crops=has_crops)
        for step, values in ((1, {"loss": 2.0}), (2, {"loss": 1.0}), (2, KNN)):
            writer.write(step, values)
            gallery(step, values)
    return board.shown


def has_colour(pixels, colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((pixels == rgb).all(-1).any())


def test_crops_hang_after_the_first_line_and_curves_after_an_evaluation(
    arrays, tmp_path
):
    changes = {"seeds": 2, "monitor.resize": 0}
    config = tiny_config("cifar10_moco", "logo", arrays, **changes)
    experiment = make_experiment(config, make_mesh(jax.devices()[:1]))
    (crops, curve) = shown(experiment, tmp_path / "new", has_crops=False)
    assert crops[:2] == (1, "crops")
    assert all(has_colour(crops[2], colour) for colour in COLOURS[:4])  # the four boxes
    assert curve[:2] == (2, "knn")
    assert has_colour(curve[2], COLOURS[0])
    assert [x[:2] for x in shown(experiment, tmp_path / "old", has_crops=True)] == [
        (2, "knn")
    ]
