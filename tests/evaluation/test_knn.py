import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.evaluation import knn
from logo_jax.evaluation.features import Features
from logo_jax.evaluation.metrics import mean_average_precision
from logo_jax.parallel.mesh import make_mesh

CLASSES = 7
SETTINGS = ((1, 0.1), (4, 0.07), (9, 1.0))


def data_set(seed, size, dim=5):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(size, dim)).astype(np.float32)
    return Features(features, rng.integers(0, CLASSES, size).astype(np.int32))


def unit(x):
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def oracle_votes(queries, train, k, temperature):
    votes = np.zeros((len(queries), CLASSES))
    for i, query in enumerate(unit(queries)):
        similarity = unit(train.features) @ query
        for j in np.argsort(-similarity)[:k]:
            votes[i, train.labels[j]] += np.exp(similarity[j] / temperature)
    return votes


def test_votes_equal_loops_in_float64():
    train, test = data_set(0, 12), data_set(1, 6)
    similarity = unit(test.features) @ unit(train.features).T
    nearest = np.argsort(-similarity)
    votes = knn.class_votes(
        jnp.asarray(np.take_along_axis(similarity, nearest, axis=1), jnp.float32),
        jnp.asarray(train.labels[nearest]),
        settings=SETTINGS,
        num_classes=CLASSES,
    )
    for got, (k, temperature) in zip(votes, SETTINGS, strict=True):
        expected = oracle_votes(test.features, train, k, temperature)
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_accuracy_counts_every_query_over_several_tables(monkeypatch):
    train, test = data_set(0, 12), data_set(1, 10)
    monkeypatch.setattr(knn, "QUERIES_AT_ONCE", 4)
    accuracy = knn.knn_accuracy(train, test, SETTINGS, num_classes=CLASSES)
    for k, temperature in SETTINGS:
        votes = oracle_votes(test.features, train, k, temperature)
        right = votes.argmax(1) == test.labels
        expected = pytest.approx(100 * right.mean())
        assert accuracy[f"k{k}_t{temperature:g}/top1"] == expected


@pytest.mark.parametrize("k", [1, 3, 4])
def test_with_few_neighbors_a_class_without_a_vote_is_not_among_the_first_five(k):
    train, test = data_set(0, 30), data_set(1, 40)
    accuracy = knn.knn_accuracy(train, test, [(k, 0.1)], num_classes=CLASSES)
    votes = oracle_votes(test.features, train, k, 0.1)
    own = votes[np.arange(40), test.labels]
    assert accuracy[f"k{k}_t0.1/top5"] == pytest.approx(100 * (own > 0).mean())
    if k == 1:
        assert accuracy["k1_t0.1/top5"] == accuracy["k1_t0.1/top1"]


def test_four_devices_find_the_same_as_one_with_any_labels():
    train, test = data_set(0, 90), data_set(1, 30)
    several = [
        part._replace(labels=2 * np.eye(CLASSES, dtype=np.int32)[part.labels] - 1)
        for part in (train, test)
    ]
    for bank, queries in ((train, test), several):
        one, four = (
            knn.knn_accuracy(
                bank,
                queries,
                ((1, 0.1), (40, 0.07)),
                num_classes=CLASSES,
                mesh=make_mesh(jax.devices()[:count]),
            )
            for count in (1, 4)
        )
        assert one == pytest.approx(four, abs=1e-4)


def test_neighbors_are_found_by_angle_not_by_length():
    bank = Features(
        np.array([[1.0, 0.0], [50.0, 50.0]], np.float32), np.array([0, 1], np.int32)
    )
    query = Features(np.array([[2.0, 0.1]], np.float32), np.array([0], np.int32))
    accuracy = knn.knn_accuracy(bank, query, [(1, 0.1)], num_classes=2)
    assert accuracy["k1_t0.1/top1"] == 100.0


def test_more_neighbors_than_the_bank_has_are_rejected():
    with pytest.raises(ValueError, match="k=13 exceeds the 12 examples of the bank"):
        knn.knn_accuracy(
            data_set(0, 12), data_set(1, 3), [(1, 0.1), (13, 0.1)], num_classes=CLASSES
        )


@pytest.mark.parametrize("which", [0, 1])
def test_images_without_a_label_are_rejected_and_not_counted_as_wrong(which):
    sets = [data_set(0, 9), data_set(1, 4)]
    sets[which].labels[2] = -1
    with pytest.raises(ValueError, match="kNN needs a label for every image"):
        knn.knn_accuracy(*sets, SETTINGS, num_classes=CLASSES)


@pytest.mark.parametrize("temperature", [knn.COLDEST, 0.0124])
def test_votes_at_the_lowest_temperature_are_finite(temperature):
    same = Features(np.ones((200, 2), np.float32), np.zeros(200, np.int32))
    settings = ((200, temperature),)
    if temperature < knn.COLDEST:
        with pytest.raises(
            ValueError, match="must have temperatures of 0.0125 or more"
        ):
            knn.knn_accuracy(same, same, settings, num_classes=2)
    else:
        votes = knn.class_votes(
            jnp.ones((1, 200)),
            jnp.zeros((1, 200), int),
            settings=settings,
            num_classes=2,
        )
        assert np.isfinite(votes).all()


def test_images_of_several_classes_are_ranked_by_the_votes_for_each():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 8))
    shown = rng.random((90, 3)) < 0.4
    features = shown @ centers + 0.3 * rng.normal(size=(90, 8)) + 0.1
    labels = np.where(shown, 1, -1)
    labels[::7, 0] = 0
    bank, queries = (
        Features(features[part].astype(np.float32), labels[part])
        for part in (slice(0, 60), slice(60, None))
    )
    found = knn.knn_accuracy(bank, queries, [(5, 0.1)], num_classes=3)
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f, _ in (queries, bank)]
    similarity = unit[0] @ unit[1].T
    votes = np.zeros((30, 3))
    for i, row in enumerate(similarity):
        for j in np.argsort(-row)[:5]:
            votes[i] += np.exp(row[j] / 0.1) * (bank.labels[j] == 1)
    wanted = 100 * mean_average_precision(votes, queries.labels)
    assert found == {"k5_t0.1/map": pytest.approx(wanted, abs=1e-3)}
    assert wanted > 70
