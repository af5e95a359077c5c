import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from logo_jax.evaluation.features import Features
from logo_jax.evaluation.metrics import METRICS
from logo_jax.evaluation.svm import COSTS, fit_svms, voc07_map


def data_set(seed, size=60, noise=0.3):
    """Three classes; an image shows a class if the feature of the class is high."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(size, 5)).astype(np.float32)
    shown = features[:, :3] + noise * rng.normal(size=(size, 3)) > 0.3
    return Features(features, np.where(shown, 1, -1).astype(np.int32))


def measured(train, test, **how):
    return voc07_map(train, test, costs=(0.1, 1.0), processes=1, **how)


def test_separable_classes_are_separated():
    assert measured(data_set(0, noise=0), data_set(1, noise=0)) > 0.97


def test_costs_are_a_hundredth_a_tenth_and_powers_of_a_half_from_a_sixteenth():
    assert len(COSTS) == 18
    assert COSTS[:3] == (0.01, 0.1, 1 / 16)
    assert COSTS[-1] == 2.0**-19


def test_machines_are_in_the_order_of_the_classes():
    weights = fit_svms(data_set(0), costs=[1.0], processes=1).weights
    np.testing.assert_array_equal(weights.argmax(0), [0, 1, 2])
    swapped = data_set(0)._replace(labels=data_set(0).labels[:, ::-1])
    np.testing.assert_allclose(
        fit_svms(swapped, costs=[1.0], processes=1).weights, weights[:, ::-1], rtol=1e-5
    )


def test_the_cost_is_the_one_that_cross_validation_prefers():
    data, costs = data_set(2, noise=1.0), [1e-6, 1e-4, 1e-2, 1.0]
    lengths = np.linalg.norm(data.features, axis=1, keepdims=True)
    for k, chosen in enumerate(fit_svms(data, costs=costs, processes=1).costs):
        precision = {
            cost: cross_val_score(
                LinearSVC(C=cost, class_weight={1: 2}, random_state=0, max_iter=2000),
                data.features / lengths,
                data.labels[:, k],
                scoring="average_precision",
                cv=3,
            ).mean()
            for cost in costs
        }
        assert precision[chosen] == pytest.approx(max(precision.values()), abs=1e-6)


def test_difficult_images_are_negatives_in_training():
    data = data_set(0)
    labels = data.labels.copy()
    labels[:20][labels[:20] == -1] = 0
    plain, difficult = (
        fit_svms(Features(data.features, each), costs=[1.0], processes=1).weights
        for each in (data.labels, labels)
    )
    np.testing.assert_array_equal(plain, difficult)


def test_difficult_images_are_not_counted_in_the_test():
    train, test = data_set(0), data_set(1)
    worst = Features(-5 * train.features[:10], np.zeros((10, 3), np.int32))
    more = Features(*(np.concatenate(pair) for pair in zip(test, worst, strict=True)))
    assert measured(train, more) == measured(train, test)


def test_only_the_direction_of_features_matters():
    train, test = data_set(0), data_set(1)
    lengths = np.linspace(1, 1e3, len(test.features), dtype=np.float32)[:, None]
    longer = test._replace(features=test.features * lengths)
    assert measured(train, longer) == pytest.approx(measured(train, test), abs=1e-3)


def test_both_metrics_are_available():
    train, test = data_set(0, noise=1.0), data_set(1, noise=1.0)
    machines = fit_svms(train, costs=[1.0], processes=1)
    lengths = np.linalg.norm(test.features, axis=1, keepdims=True)
    scores = test.features / lengths @ machines.weights + machines.biases
    for metric in ("map", "map_11_point"):
        got = voc07_map(train, test, metric=metric, costs=[1.0], processes=1)
        assert got == pytest.approx(METRICS[metric](scores, test.labels), abs=1e-3)


def test_processes_do_not_change_the_machines():
    one, two = (fit_svms(data_set(0), costs=[0.1, 1.0], processes=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_invalid_arguments_are_rejected():
    data = data_set(0)
    with pytest.raises(ValueError, match="use map or map_11_point"):
        voc07_map(data, data, metric="top1")
    with pytest.raises(ValueError, match="use logistic"):
        fit_svms(data._replace(labels=data.labels[:, 0]))
    rare = data.labels.copy()
    rare[2:, 1] = -1
    with pytest.raises(ValueError, match="class 1 is shown by fewer"):
        fit_svms(data._replace(labels=rare))
