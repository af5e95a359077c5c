"""`benchmarks.affinity`: pairs, measures that are known, and lines that are kept."""

from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import affinity
from logo_jax.visualization.similarity import LocalCrops
from logo_jax.visualization.similarity_plot import Scores
from tests.commands.test_report_similarity import fixture_run

__all__ = ["fixture_run"]


def test_pairs_are_of_two_images_of_one_class_or_of_two():
    labels = np.arange(30) % 3
    pairs = affinity.choose_pairs(labels, 200)
    assert pairs.same.shape == (200,)
    for rows, one in ((pairs.one_class, True), (pairs.two_classes, False)):
        assert rows.shape == (200, 2)
        assert (rows[:, 0] != rows[:, 1]).all()
        assert ((labels[rows[:, 0]] == labels[rows[:, 1]]) == one).all()
    assert len(np.unique(pairs.one_class)) == 30


class Colors:
    """Stands for a scorer: crops are one color, and the affinity is its closeness."""

    def __init__(self, levels):
        self._levels = levels

    def cut(self, images, rows, count, key):
        del images
        crops = np.broadcast_to(
            self._levels[rows][:, None, None, None, None], (len(rows), count, 2, 2, 3)
        )
        corners = jax.random.uniform(key, (len(rows), count, 2))
        boxes = np.concatenate([corners, np.ones_like(corners)], axis=-1)
        return LocalCrops(jax.numpy.asarray(crops), np.asarray(boxes))

    def scores(self, first, second):
        near = -np.abs(first - second).mean((1, 2, 3))
        return Scores(near, -near)


def test_an_affinity_of_colors_tells_color_and_class_and_no_overlap():
    labels = np.repeat(np.arange(4), 25)
    levels = labels + np.linspace(0, 0.5, 100)  # classes differ in color
    pairs = affinity.choose_pairs(labels, 400)
    scorer: Any = Colors(levels)
    images: Any = None  # the scorer makes the crops
    found = affinity.measured(scorer, images, pairs)
    # two distances that differ by rounding may have the opposite order
    assert found["affinity"]["color"] == pytest.approx(1, abs=1e-3)
    assert found["cosine"]["color"] == pytest.approx(-1, abs=1e-3)
    assert found["affinity"]["class"] == 1
    assert found["affinity"]["one image"] == 1
    assert found["cosine"]["one image"] == 0
    # all pairs of one image have equal scores
    assert np.isnan(found["affinity"]["overlap"])


@pytest.mark.slow
def test_a_checkpoint_is_measured_once(run, tmp_path, capsys):
    lines = tmp_path / "affinity.jsonl"
    command = [str(lines), str(run), "--pairs=40", f"--figure={tmp_path / 'a.png'}"]
    affinity.main(command)
    first, printed = lines.read_text(), capsys.readouterr().out
    assert printed.splitlines()[2].startswith("| run | 5 | 1 | ")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    affinity.main(command)
    assert lines.read_text() == first
    assert capsys.readouterr().out == printed
