import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.evaluation import linear_grid as linear
from logo_jax.evaluation.features import Features

CLASSES = 3
QUICK = linear.Training(CLASSES, num_epochs=5, batch_size=16)


def blobs(seed, size, spread=0.3, scale=1.0):
    """Three blobs in four dimensions; the last dimension is constant."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, size).astype(np.int32)
    centers = np.eye(CLASSES, 4)[labels]
    noise = spread * rng.normal(size=(size, 4)) * [1, 1, 1, 0]
    return Features((scale * (centers + noise)).astype(np.float32), labels)


def relabeled(data, seed):
    """The same images with permuted labels."""
    labels = np.random.default_rng(seed).permutation(data.labels)
    return data._replace(labels=labels)


def train_grid(x, labels, pairs, training):
    """Weights of the classifiers of a grid, with biases as last row: [g, d + 1, c]."""
    found = linear.train_grid(*map(jnp.asarray, (x, labels, pairs)), training)
    return np.concatenate([found["kernel"], found["bias"][:, None]], axis=1)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_separable_blobs_are_separated_whatever_the_features_scale(scale, schedule):
    train, val, test = (blobs(i, 60, spread=0.1, scale=scale) for i in range(3))
    training = QUICK._replace(schedule=schedule)
    probe = linear.best_of_grid(train, val, test, training)
    assert (probe.top1, probe.top5) == (100.0, 100.0)
    assert probe.val_top1.max() == 100.0


def test_a_grid_trains_each_pair_as_if_it_were_alone():
    data = blobs(0, 50)
    pairs = jnp.array([(0.01, 0.0), (0.5, 0.0), (0.5, 0.1)])
    together = train_grid(*data, pairs, QUICK)
    for weights, pair in zip(together, pairs, strict=True):
        (alone,) = train_grid(*data, pair[None], QUICK)
        np.testing.assert_allclose(weights, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.1
    assert np.abs(together[1] - together[2]).max() > 0.1


def test_training_is_pytorchs_sgd_step_by_step():
    data = blobs(0, 8)
    training = linear.Training(CLASSES, num_epochs=3, batch_size=8, schedule="step")
    rate, decay = 0.3, 0.05
    (weights,) = train_grid(*data, jnp.array([(rate, decay)]), training)
    x = np.hstack([data.features, np.ones((8, 1))])
    expected = velocity = np.zeros((5, CLASSES))
    for factor in (1, 1, 0.1):  # steps 0, 1 and 2 of 3
        scores = np.exp(x @ expected)
        wrong = scores / scores.sum(1, keepdims=True) - np.eye(CLASSES)[data.labels]
        velocity = 0.9 * velocity + x.T @ wrong / 8 + decay * expected
        expected = expected - rate * factor * velocity
    np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_every_pair_follows_the_formula_over_many_batches_in_float64(schedule):
    size, batch, epochs = 50, 16, 7
    data, pairs = blobs(0, size), [(0.01, 0.0), (0.3, 1e-3), (1.0, 0.1)]
    training = linear.Training(CLASSES, epochs, batch, schedule, seed=3)
    found = train_grid(*data, np.float32(pairs), training)
    x = np.hstack([data.features, np.ones((size, 1))])
    steps = size // batch
    for weights, (rate, decay) in zip(found, pairs, strict=True):
        expected = velocity = np.zeros((5, CLASSES))
        for count in range(epochs * steps):
            key = jax.random.fold_in(jax.random.key(3), count // steps)
            order = np.asarray(jax.random.permutation(key, size))
            rows = order[count % steps * batch :][:batch]
            scores = np.exp(x[rows] @ expected)
            wrong = scores / scores.sum(1, keepdims=True)
            wrong -= np.eye(CLASSES)[data.labels[rows]]
            velocity = 0.9 * velocity + x[rows].T @ wrong / batch + decay * expected
            done = count / (epochs * steps)
            cosine = 0.5 * (1 + np.cos(np.pi * done))
            step = 1.0 if done < 0.6 else 0.1 if done < 0.8 else 0.01
            factor = {"cosine": cosine, "step": step}[schedule]
            expected = expected - rate * factor * velocity
        np.testing.assert_allclose(weights, expected, atol=3e-6)


def test_the_rate_falls_at_60_and_80_percent_of_any_number_of_steps():
    for steps in (1, 2, 3, 4, 5, 7, 8, 11, 15, 35, 40):
        rates = linear.SCHEDULES["step"](2.0, steps)
        for i in range(steps):
            passed = (5 * i >= 3 * steps) + (5 * i >= 4 * steps)
            np.testing.assert_allclose(rates(i), 2 * 0.1**passed, rtol=1e-6)


def test_the_pair_is_the_validations_best_and_no_label_of_the_test_set_moves_it():
    train, val, test = blobs(0, 80), blobs(1, 60, spread=1.0), blobs(2, 60)
    grid = {"learning_rates": (1e-5, 0.03, 1.0), "weight_decays": (0.0, 0.5)}
    probe = linear.best_of_grid(train, val, test, QUICK, **grid)
    r, w = np.unravel_index(probe.val_top1.argmax(), probe.val_top1.shape)
    assert probe.learning_rate == pytest.approx(grid["learning_rates"][r])
    assert probe.weight_decay == pytest.approx(grid["weight_decays"][w])
    assert probe.val_top1.std() > 0
    # the choice is the same for test sets on which another pair would be better
    for seed in range(3):
        other = relabeled(test, seed)
        again = linear.best_of_grid(train, val, other, QUICK, **grid)
        np.testing.assert_array_equal(again.val_top1, probe.val_top1)
        assert again[2:4] == probe[2:4]
        assert again.top1 < probe.top1


def test_the_chosen_pair_is_trained_again_on_train_and_val_together():
    train, val, test = blobs(0, 40), blobs(1, 40, spread=1.0), blobs(2, 200, spread=0.6)
    pair = np.array([(0.1, 0.01)])
    probe = linear.best_of_grid(
        train, val, test, QUICK, learning_rates=[0.1], weight_decays=[0.01]
    )
    both = Features(*(np.concatenate(parts) for parts in zip(train, val, strict=True)))
    (expected,) = linear.accuracies(both, test, pair, QUICK)
    (of_train_alone,) = linear.accuracies(train, test, pair, QUICK)
    assert probe.top1 == pytest.approx(100 * expected[0])
    assert expected[0] != of_train_alone[0]


def test_the_order_of_rows_is_a_function_of_the_seed():
    data = blobs(0, 50)
    first, again, other = (
        train_grid(*data, np.ones((1, 2), np.float32), QUICK._replace(seed=seed))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_a_classifier_that_diverged_has_accuracy_0_and_is_not_chosen():
    train, val = blobs(0, 60), blobs(1, 30)
    grid = {"learning_rates": (1e38, 0.1), "weight_decays": (1.0,)}
    probe = linear.best_of_grid(train, val, val, QUICK, **grid)
    assert probe.val_top1[0, 0] == 0.0
    assert probe.learning_rate == pytest.approx(0.1)


def test_features_are_standardized_and_a_constant_feature_is_not_scaled():
    data = blobs(0, 30)
    mean, scale = linear.standardization(data.features)
    assert scale[3] == 1.0
    standard = (data.features - mean) / scale
    np.testing.assert_allclose(standard.std(0), [1, 1, 1, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: d._replace(labels=d.labels[:, None]), "one class per image"),
        (lambda d: d._replace(labels=d.labels + 1), r"range from 1 to 3"),
        (lambda d: Features(d.features[:0], d.labels[:0]), "val is empty"),
    ],
)
def test_invalid_labels_are_rejected_with_a_message_of_one_line(broken, message):
    data = blobs(0, 30)
    with pytest.raises(ValueError, match=message) as raised:
        linear.best_of_grid(data, broken(data), data, QUICK)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="schedule='cos' must be one of cosine, step"):
        linear.best_of_grid(data, data, data, QUICK._replace(schedule="cos"))
