import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from logo_jax.evaluation import logistic
from logo_jax.evaluation.features import Features
from logo_jax.evaluation.logistic import STRENGTHS, choose_strength, fit_strengths

CLASSES = 5
SOME = [1e-6, 1e-2, 1.0, 1e2, 1e5]


def data_set(seed, size=200, dim=20, condition=1e2):
    """Noisy classes with ill-conditioned features that are far from the origin."""
    rng = np.random.default_rng(7)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    scale, truth = np.geomspace(1, 1 / condition, dim), rng.normal(size=(dim, CLASSES))
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(size, dim))
    labels = (hidden @ truth + rng.gumbel(size=(size, CLASSES))).argmax(1)
    features = hidden * scale @ turn + 3
    return Features(features.astype(np.float32), labels.astype(np.int32))


def objective(data, weights, biases, strength):
    logits = data.features.astype(np.float64) @ np.float64(weights) + biases
    own = logits[np.arange(len(logits)), data.labels]
    return (logsumexp(logits, axis=1) - own).sum() + strength / 2 * np.sum(
        np.float64(weights) ** 2
    )


def scikit_learns(data, strength):
    classifier = LogisticRegression(
        C=1 / strength, solver="newton-cholesky", tol=1e-10, max_iter=1000
    )
    return classifier.fit(data.features.astype(np.float64), data.labels)


@pytest.fixture(scope="module")
def fits():
    return fit_strengths(data_set(0), SOME, num_classes=CLASSES)


@pytest.mark.parametrize("i", range(len(SOME)))
def test_objective_and_predictions_are_scikit_learns(fits, i):
    train, test = data_set(0), data_set(1, size=4000)
    wanted = scikit_learns(train, SOME[i])
    got = objective(train, fits.weights[i], fits.biases[i], SOME[i])
    least = objective(train, wanted.coef_.T, wanted.intercept_, SOME[i])
    assert got == pytest.approx(least, rel=1e-4)
    predicted = [*fits.scores(test.features)][i].argmax(1)
    assert np.mean(predicted == wanted.predict(test.features)) >= 0.999


def test_strengths_fitted_in_groups_reach_the_same_minimum(fits, monkeypatch):
    monkeypatch.setattr(logistic, "AT_ONCE", 2 * 200 * CLASSES)
    grouped = fit_strengths(data_set(0), SOME, num_classes=CLASSES)
    assert grouped.converged.all()
    for i, strength in enumerate(SOME):
        values = [
            objective(data_set(0), found.weights[i], found.biases[i], strength)
            for found in (fits, grouped)
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_every_strength_converges_within_the_maximum_number_of_iterations(fits):
    assert fits.converged.all()
    assert (fits.iterations > 0).all()
    assert (fits.iterations <= 5000).all()
    assert fits.weights.shape == (len(SOME), 20, CLASSES)


def test_the_gradient_is_that_of_the_sum_and_half_the_squared_weights(fits):
    data, k = data_set(0), 3
    features = data.features.astype(np.float64)
    probability = softmax(features @ fits.weights[k] + fits.biases[k], axis=1)
    residual = probability - np.eye(CLASSES)[data.labels]
    penalty = SOME[k] * fits.weights[k]
    assert np.abs(features.T @ residual + penalty).max() < 1e-2 * np.abs(penalty).max()
    assert np.abs(residual.sum(0)).max() < 1e-2  # biases are not penalized


def test_strengths_do_not_influence_one_another(fits):
    alone = fit_strengths(data_set(0), SOME[2:3], num_classes=CLASSES)
    np.testing.assert_allclose(alone.weights[0], fits.weights[2], rtol=0.02, atol=2e-3)


def test_what_has_not_converged_says_so():
    few = fit_strengths(data_set(0), SOME, num_classes=CLASSES, max_iterations=3)
    assert not few.converged[0]
    assert (few.iterations <= 3).all()


def test_float64_reaches_a_lower_tolerance():
    train = data_set(0)
    exact = fit_strengths(
        train, [1.0], num_classes=CLASSES, tolerance=1e-12, dtype=np.float64
    )
    assert exact.weights.dtype == np.float64
    wanted = scikit_learns(train, 1.0).coef_.T
    np.testing.assert_allclose(exact.weights[0], wanted, atol=1e-4)


def test_features_may_outnumber_examples_and_repeat_themselves():
    train = data_set(0, size=30, dim=40)
    doubled = train._replace(features=np.tile(train.features, 2))
    fits = fit_strengths(doubled, [1.0], num_classes=CLASSES)
    wanted = scikit_learns(doubled, 1.0)
    got = objective(doubled, fits.weights[0], fits.biases[0], 1.0)
    least = objective(doubled, wanted.coef_.T, wanted.intercept_, 1.0)
    assert got == pytest.approx(least, rel=1e-4)


def test_transfer_measures_the_strength_that_validation_prefers():
    train, val, test = data_set(0), data_set(1, size=60), data_set(2)
    found = choose_strength(
        train, val, test, metric="mean_per_class", num_classes=CLASSES, strengths=SOME
    )
    accuracies = [scikit_learns(train, s).score(val.features, val.labels) for s in SOME]
    assert found.strength == SOME[int(np.argmax(accuracies))]
    both = Features(*(np.concatenate(pair) for pair in zip(train, val, strict=True)))
    wanted = scikit_learns(both, found.strength).score(test.features, test.labels)
    assert found.top1 == pytest.approx(wanted, abs=0.006)
    assert found.value != found.top1
    assert found.converged


@pytest.mark.slow
def test_the_largest_of_equally_good_strengths_is_chosen():
    data = Features(np.eye(5, dtype=np.float32), np.arange(5, dtype=np.int32))
    how = {"metric": "top1", "num_classes": CLASSES}
    found = choose_strength(data, data, data, strengths=[0.1, 10.0, 1.0], **how)
    assert (found.strength, found.value) == (10.0, 1.0)


def test_strengths_are_45_from_a_millionth_to_a_hundred_thousand():
    assert len(STRENGTHS) == 45
    np.testing.assert_allclose(STRENGTHS[::44], [1e-6, 1e5])


def test_invalid_arguments_are_rejected():
    data = data_set(0, size=10)
    with pytest.raises(ValueError, match="svm for multi-label images"):
        choose_strength(data, data, data, metric="map", num_classes=CLASSES)
    hidden = data._replace(labels=np.full(10, -1, np.int32))
    with pytest.raises(ValueError, match="labels of the test images range from -1"):
        choose_strength(data, data, hidden, metric="top1", num_classes=CLASSES)
    several = data._replace(labels=np.ones((10, CLASSES), np.int32))
    with pytest.raises(ValueError, match="use --protocol=svm"):
        fit_strengths(several, num_classes=CLASSES)
    with pytest.raises(ValueError, match="must be in"):
        fit_strengths(data, num_classes=2)
    with pytest.raises(ValueError, match="must be positive"):
        fit_strengths(data, [0.0], num_classes=CLASSES)
