import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from logo_jax.evaluation.metrics import average_precision, mean_average_precision


def devkits(scores, labels):
    """Average precision as in VOCap.m, with loops: padded, then made monotone."""
    order = np.argsort(-scores[labels != 0])
    shown = (labels[labels != 0] == 1)[order]
    recall = [0.0, *(np.cumsum(shown) / shown.sum()), 1.0]
    precision = [0.0, *(np.cumsum(shown) / np.arange(1, len(shown) + 1)), 0.0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = [i for i in range(1, len(recall)) if recall[i] != recall[i - 1]]
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in steps)


def random_case(seed, n=60):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.choice([-1, 0, 1], n, p=[0.6, 0.1, 0.3])


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_equals_that_of_the_development_kit(seed):
    scores, labels = random_case(seed)
    assert average_precision(scores, labels) == pytest.approx(devkits(scores, labels))


def test_average_precision_is_above_scikit_learns_by_the_monotone_envelope_alone():
    scores, labels = random_case(0)
    counted = labels != 0
    plain = average_precision_score(labels[counted] == 1, scores[counted])
    assert plain < average_precision(scores, labels) < plain + 0.1
    falling = np.array([1, 1, 1, -1, 1, -1, -1, 1, -1, -1, -1])  # precision decreases
    ranks = -np.arange(len(falling), dtype=float)
    assert average_precision(ranks, falling) == pytest.approx(
        average_precision_score(falling == 1, ranks)
    )


def test_images_of_equal_score_are_retrieved_together():
    labels = np.array([1, -1, -1, 1])
    for order in (np.arange(4), np.arange(4)[::-1]):
        assert average_precision(np.zeros(4), labels[order]) == 0.5


def test_an_image_that_is_not_counted_changes_nothing():
    scores, labels = random_case(3)
    counted = labels != 0
    assert average_precision(scores, labels) == average_precision(
        scores[counted], labels[counted]
    )


def test_the_mean_is_over_classes():
    cases = [random_case(seed) for seed in range(3)]
    scores, labels = (np.stack(part, axis=1) for part in zip(*cases, strict=True))
    wanted = np.mean([average_precision(*case) for case in cases])
    assert mean_average_precision(scores, labels) == pytest.approx(wanted)


def test_a_class_that_no_image_shows_has_no_precision_and_is_left_out_of_the_mean():
    with pytest.raises(ValueError, match="no image shows the class"):
        average_precision(np.zeros(3), np.array([-1, 0, -1]))
    scores, labels = random_case(0)
    both = np.stack([scores, scores], 1), np.stack([labels, -np.ones_like(labels)], 1)
    assert mean_average_precision(*both) == average_precision(scores, labels)
    with pytest.raises(ValueError, match="no image shows any class"):
        mean_average_precision(both[0], -np.ones_like(both[1]))
