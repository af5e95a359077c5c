"""Collapse rules on synthetic rows of metrics."""

import pytest

from logo_jax.training import collapse
from logo_jax.training.collapse import Health, assess

WELL = {"loss": -0.8, "health/std": 0.98, "health/rank": 4.5, "health/saturation": 0.0}


def lines(*changes, first=120, every=20):
    return [
        {"step": first + i * every} | WELL | change for i, change in enumerate(changes)
    ]


@pytest.mark.parametrize(
    ("sign", "state", "word"),
    [
        ({"health/std": 0.05}, Health.COLLAPSED, "one point"),
        ({"health/rank": 1.1}, Health.COLLAPSED, "one line"),
        ({"health/rank": 1.8}, Health.PARTIAL, "few of their dimensions"),
        ({"health/saturation": 0.95}, Health.PARTIAL, "regressor_learning_rate"),
        ({"health/std": 0.05, "health/saturation": 1.0}, Health.COLLAPSED, "one point"),
        ({}, Health.HEALTHY, ""),
    ],
)
def test_a_symptom_in_three_rows_is_reported_with_advice(sign, state, word):
    found = assess(lines(sign, sign, sign))
    assert found.state is state
    assert word in found.advice
    assert bool(found.advice) == (state is not Health.HEALTHY)


def test_two_rows_or_an_interruption_are_not_enough():
    sign = {"health/std": 0.0}
    assert assess(lines(sign, sign)).state is Health.HEALTHY
    assert assess(lines(sign, sign, {}, sign)).state is Health.HEALTHY
    assert assess(lines({}, sign, sign, sign)).state is Health.COLLAPSED


def test_rows_of_the_first_hundred_steps_are_ignored():
    sign = {"health/std": 0.0}
    assert assess(lines(*[sign] * 3, first=100)).state is Health.HEALTHY
    assert assess(lines(*[sign] * 4, first=100)).state is Health.COLLAPSED


def test_a_widening_narrow_cone_is_excused_for_a_thousand_steps():
    """The values are those of MoCo on CIFAR-10 at steps 110 to 130."""
    cone = [{"health/std": std, "health/rank": 1.1} for std in (0.059, 0.063, 0.065)]
    assert assess(lines(*cone)).state is Health.HEALTHY
    assert assess(lines(*cone[::-1])).state is Health.COLLAPSED
    assert assess(lines(*cone, first=980)).state is Health.COLLAPSED


def test_a_low_rank_of_a_narrow_cone_is_excused_for_a_thousand_steps():
    narrow, wide = ({"health/std": std, "health/rank": 1.1} for std in (0.2, 0.65))
    assert assess(lines(*[narrow] * 3)).state is Health.HEALTHY
    assert assess(lines(*[narrow] * 3, first=980)).state is Health.COLLAPSED
    assert assess(lines(*[wide] * 3)).state is Health.COLLAPSED
    assert not collapse.suspicious(lines(narrow))


def test_three_different_symptoms_are_not_enough():
    mixed = [{"health/std": 0.0}, {"health/rank": 1.9}, {"health/saturation": 1.0}]
    assert assess(lines(*mixed)).state is Health.HEALTHY


def test_rows_of_evaluations_and_missing_numbers_are_skipped():
    sign = {"health/std": 0.0}
    knn = {"step": 140, "knn/k20_t0.07/top1": 80.0}
    bad = lines(sign, sign, sign)
    assert assess([bad[0], knn, *bad[1:]]).state is Health.COLLAPSED
    assert assess(lines(*[{"health/rank": None}] * 3)).state is Health.HEALTHY


def test_a_loss_that_rises_while_the_queue_fills_is_reported_as_normal():
    filling = {"health/queue_fill": 0.5}
    rising = lines({"loss": 2.0} | filling, {"loss": 3.0} | filling, first=20)
    found = assess(rising)
    assert found.state is Health.HEALTHY
    assert "queue" in found.advice
    assert "normal" in found.advice
    assert not assess(rising[::-1]).advice
    full = {"health/queue_fill": 1.0}
    assert not assess(lines({"loss": 2.0} | full, {"loss": 3.0} | full)).advice


def test_one_row_is_suspicious_only_by_symptoms_of_collapse():
    (dim, flat, few) = lines(
        {"health/std": 0.0}, {"health/rank": 1.0}, {"health/rank": 1.9}
    )
    assert collapse.suspicious([dim])
    assert collapse.suspicious([few, flat])
    assert not collapse.suspicious([dim, few])


def test_a_possibly_healthy_start_is_not_suspicious():
    sick = {"health/std": 0.0}
    assert not collapse.suspicious(lines(sick, first=100))
    assert collapse.suspicious(lines(sick, first=101))
    opening = [{"health/std": 0.05}, {"health/std": 0.06}]
    assert not collapse.suspicious(lines(*opening))
    assert collapse.suspicious(lines(*opening[::-1]))
    assert collapse.suspicious(lines(*opening, first=1001))
