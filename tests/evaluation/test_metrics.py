import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from logo_jax.evaluation.metrics import (
    METRICS,
    ONE_LABEL,
    SEVERAL_LABELS,
    UNRANKED,
    find_metric,
    label_rank,
    top_hits,
)

CLASSES = 8
# Computed by hand: the precisions are 1, 1/2, 2/3, 1/2 at the recalls 1/2, 1/2, 1, 1.
# The monotone precision is 1 up to recall 1/2 (six of eleven thresholds) and 2/3 above
# it (five thresholds).
RANKED = np.array([[0.9], [0.8], [0.7], [0.6]])
SHOWN = np.array([[1], [-1], [1], [-1]])


def random_case(seed, size=90):
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES - 1, size, p=np.arange(1, CLASSES) / 28)
    return rng.normal(size=(size, CLASSES)), labels


@pytest.mark.parametrize("seed", range(3))
def test_accuracies_are_scikit_learns(seed):
    scores, labels = random_case(seed)
    classes = np.arange(CLASSES)
    for name, k in (("top1", 1), ("top5", 5)):
        wanted = sklearn_metrics.top_k_accuracy_score(
            labels, scores, k=k, labels=classes
        )
        assert METRICS[name](scores, labels) == pytest.approx(wanted, abs=1e-6)
    present = np.delete(
        scores, CLASSES - 1, axis=1
    )  # scikit-learn warns about classes that are not in the labels
    wanted = sklearn_metrics.balanced_accuracy_score(labels, present.argmax(1))
    assert METRICS["mean_per_class"](present, labels) == pytest.approx(wanted, abs=1e-6)


def test_a_class_without_examples_does_not_count_in_the_mean():
    scores = np.eye(3)[[0, 0, 2, 1]]
    labels = np.array([0, 0, 0, 1])  # recalls 2/3 and 1; no example has class 2
    assert METRICS["mean_per_class"](scores, labels) == pytest.approx(5 / 6)
    assert METRICS["top1"](scores, labels) == 0.75


def test_among_equal_scores_the_earlier_class_is_ranked_first():
    scores, last = np.zeros((6, 6)), np.arange(6)
    assert METRICS["top1"](scores, last) == pytest.approx(1 / 6)
    assert METRICS["top5"](scores, last) == pytest.approx(5 / 6)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_a_rank_is_the_position_in_a_stable_sort_of_the_scores(array):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (2, 40, 6)).astype(np.float32)  # with many ties
    labels = rng.integers(0, 6, 40).astype(np.int32)
    order = np.argsort(-scores, axis=-1, kind="stable")
    wanted = (order == labels[:, None]).argmax(-1)
    np.testing.assert_array_equal(label_rank(array(scores), array(labels)), wanted)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_unknown_labels_and_scores_that_are_not_finite_are_never_hits(array):
    scores = np.zeros((4, 3), np.float32)
    scores[0, 1], scores[1, 2] = np.nan, np.inf
    labels = np.array([0, 2, -1, 2], np.int32)
    ranks = label_rank(array(scores), array(labels))
    np.testing.assert_array_equal(ranks, [UNRANKED, UNRANKED, UNRANKED, 2])


def test_scores_in_float64_are_compared_in_float64():
    scores = np.array([[1.0, 1.0 + 1e-12]])
    assert METRICS["top1"](scores, np.array([1])) == 1.0


def test_a_metric_is_for_images_of_one_label_or_of_several():
    assert {**ONE_LABEL, **SEVERAL_LABELS} == METRICS
    with pytest.raises(ValueError, match="use top1, top5 or mean_per_class here"):
        find_metric("map", several_labels=False)
    with pytest.raises(
        ValueError, match="use map or map_11_point here, and --protocol="
    ):
        find_metric("top1", several_labels=True)


def test_with_fewer_than_five_classes_all_are_among_the_first_five():
    assert METRICS["top5"](np.zeros((3, 3)), np.arange(3)) == 1.0


def test_average_precisions_equal_those_computed_by_hand():
    assert METRICS["map"](RANKED, SHOWN) == pytest.approx(1 / 2 + 2 / 3 / 2)
    wanted = (6 + 5 * 2 / 3) / 11
    assert METRICS["map_11_point"](RANKED, SHOWN) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_equals_that_of_scikit_learns_monotone_curve(seed):
    rng = np.random.default_rng(seed)
    scores, shown = rng.normal(size=(60, 1)), rng.choice([-1, 1], (60, 1))
    precision, recall, _ = sklearn_metrics.precision_recall_curve(shown[:, 0], scores)
    steps, precision, recall = -np.diff(recall), precision[:-1], recall[:-1]
    wanted = np.sum(steps * np.maximum.accumulate(precision))
    assert METRICS["map"](scores, shown) == pytest.approx(wanted, abs=1e-6)
    thresholds = np.linspace(0, 1, 11)
    wanted = np.mean([precision[recall >= t - 1e-9].max() for t in thresholds])
    assert METRICS["map_11_point"](scores, shown) == pytest.approx(wanted, abs=1e-6)


def test_a_recall_of_three_tenths_reaches_the_threshold_of_three_tenths():
    # the precision decreases after a recall of 3/10
    shown = np.array([1] * 3 + [-1] * 70 + [1] * 7)[:, None]
    scores = -np.arange(80.0)[:, None]
    wanted = (4 * 1.0 + 7 * 10 / 80) / 11
    assert METRICS["map_11_point"](scores, shown) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["map", "map_11_point"])
def test_an_image_of_label_0_is_not_counted(name):
    scores, labels = np.array([[0.95], *RANKED]), np.array([[0], *SHOWN])
    assert METRICS[name](scores, labels) == METRICS[name](RANKED, SHOWN)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_an_unknown_label_is_not_a_top5_hit_with_fewer_than_five_classes(array):
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.0, 0.0]])
    hits = top_hits(array(scores), array(np.array([0, 0, -1])))
    np.testing.assert_array_equal(hits, [1, 2])
