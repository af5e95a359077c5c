"""Curves of the metrics in metrics.jsonl."""

import io

import numpy as np
from PIL import Image

from logo_jax.visualization import curves

ROWS = [
    {"step": 1, "loss": 2.0, "loss/std": 0.5, "loss/seed_0": 1.5, "health/std": 0.1},
    {"step": 2, "loss": None, "loss/std": None, "grad_norm": 3.0},
    {"step": 2, "knn/k20_t0.07/top1": 50.0, "knn/k20_t0.07/top5": 90.0},
    {"step": 3, "loss": 1.0, "images_per_second": 9.0},
]


def test_statistics_over_seeds_are_not_separate_metrics():
    names = curves.metric_names({"a": ROWS})
    assert names[:3] == ["loss", "health/std", "grad_norm"]
    assert not {"step", "loss/std", "loss/seed_0"} & {*names}


def test_a_curve_has_the_steps_with_the_metric_and_nan_if_it_is_null():
    steps, values, spread = curves.curve(ROWS, "loss")
    np.testing.assert_array_equal(steps, [1, 2, 3])
    np.testing.assert_array_equal(values, [2.0, np.nan, 1.0])
    np.testing.assert_array_equal(spread, [0.5, np.nan, np.nan])


def test_each_metric_is_in_one_figure_and_top5_in_none():
    names = curves.metric_names({"a": ROWS})
    holders = {
        name: [group.name for group in curves.GROUPS if group.holds(name)]
        for name in names
    }
    assert holders == {
        "loss": ["loss"],
        "health/std": ["health"],
        "grad_norm": ["health"],
        "knn/k20_t0.07/top1": ["knn"],
        "knn/k20_t0.07/top5": [],
        "images_per_second": ["throughput"],
    }


def test_accuracies_of_the_projector_and_of_linear_classifiers_are_in_the_knn_figure():
    names = ("knn_projector/k5_t0.1/top1", "linear/top1", "linear/test_top1")
    assert all(map(curves.ACCURACY.holds, names))
    assert curves.ACCURACY.holds("knn/k20_t0.07/map")  # of images with several labels
    assert not curves.ACCURACY.holds("linear/loss")


def test_a_second_run_adds_its_own_line():
    other = [row | {"loss": 5.0} for row in ROWS]
    (alone,) = (x for x in curves.plot_curves({"a": ROWS}) if x.name == "loss")
    (both,) = (
        x for x in curves.plot_curves({"a": ROWS, "b": other}) if x.name == "loss"
    )
    assert "loss 1 (a), 5 (b)" in both.alt
    orange = (224, 123, 57)
    assert orange not in colors(alone.png)
    assert orange in colors(both.png)


def colors(png):
    with Image.open(io.BytesIO(png)) as image:
        return {color[:3] for _, color in image.getcolors(2**24)}
