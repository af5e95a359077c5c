"""Devices exchange gradients, keys and a few numbers, and nothing else."""

import math

import jax
import pytest

from logo_jax.methods.base import ENCODER, PREDICTOR, REGRESSOR
from logo_jax.parallel.programs import bytes_by_kind
from tests.contracts import cases
from tests.cost.programs import exchanges, num_bytes, state_of

FLOAT = 4
EMBEDDINGS = cases.BATCH * cases.DIM * FLOAT  # of one view, on all devices
KEYS = 2 * EMBEDDINGS  # of the two global views
HEALTH = 2 * EMBEDDINGS  # two views; the batch is below `diagnostics.MOST_ROWS`
SCORES = 4 * cases.BATCH * FLOAT  # pairs from one image and from two, in both orders
IMAGES = 2 * cases.BATCH * math.prod((8, 8, 3)) * FLOAT
METRICS = {  # scalars
    "moco": 9,
    "moco_shuffled": 9,
    "logo_moco": 17,
    "logo_moco_joint": 15,
    "logo_simsiam_joint": 14,
}


def reduced(name):
    """Returns the bytes of gradients, running statistics and metrics."""
    state = state_of(name)
    return num_bytes((state.params, state.batch_stats)) + METRICS[name] * FLOAT


def permuted(num_devices):
    """Returns the bytes of other images' embeddings that a device receives."""
    return {"collective-permute": EMBEDDINGS // num_devices}


def test_moco_exchanges_gradients_statistics_metrics_keys_and_health():
    assert bytes_by_kind(exchanges("moco", 4)) == {
        "all-reduce": reduced("moco"),
        "all-gather": KEYS + HEALTH,
    }


def test_shuffling_adds_one_of_a_devices_two_images_and_its_returning_keys():
    assert bytes_by_kind(exchanges("moco_shuffled", 4)) == {
        "all-reduce": reduced("moco_shuffled"),
        "all-gather": KEYS + HEALTH,
        "collective-permute": (IMAGES + KEYS) // cases.BATCH,
    }


def test_joint_logo_adds_the_regressors_gradient_scores_and_one_crops_embeddings():
    assert bytes_by_kind(exchanges("logo_moco_joint", 4)) == {
        "all-reduce": reduced("logo_moco_joint"),
        "all-gather": KEYS + HEALTH + SCORES,
    } | permuted(4)


def test_rolled_negatives_are_not_gathered():
    found = bytes_by_kind(exchanges("logo_every_option", 4))
    assert found["all-gather"] == HEALTH + SCORES


@pytest.mark.slow
def test_released_logo_exchanges_the_encoders_gradient_twice():
    again = num_bytes(state_of("logo_moco").params[ENCODER])
    assert bytes_by_kind(exchanges("logo_moco", 4)) == {
        "all-reduce": reduced("logo_moco") + again,
        "all-gather": KEYS + HEALTH + SCORES,
    } | permuted(4)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4])
def test_simsiam_logo_exchanges_no_keys_and_as_much_on_any_number_of_devices(
    num_devices,
):
    assert bytes_by_kind(exchanges("logo_simsiam_joint", num_devices)) == {
        "all-reduce": reduced("logo_simsiam_joint"),
        "all-gather": HEALTH + SCORES,
    } | permuted(num_devices)


@pytest.mark.parametrize(
    ("name", "gradient_steps"),
    [("moco", 1), ("logo_moco_joint", 2), ("logo_moco", 3), ("logo_simsiam_joint", 2)],
)
def test_devices_wait_for_one_sum_a_gradient_step_and_one_of_metrics(
    name, gradient_steps
):
    kinds = [each.kind for each in exchanges(name, 4)]
    assert kinds.count("all-reduce") == gradient_steps + 1


@pytest.mark.slow
def test_global_batch_norm_adds_two_exchanges_a_layer_and_size_of_crops():
    """All means and variances in the forward pass, and the sum of their gradients."""
    name = "logo_simsiam_joint"
    alone, together = (
        exchanges(name, 4, norms) for norms in (cases.PER_DEVICE, cases.GLOBAL)
    )
    layers = {net: means(stats) for net, stats in state_of(name).batch_stats.items()}
    views = {ENCODER: 4, PREDICTOR: 4, REGRESSOR: 4 + 1}  # learning, then repelling
    moments = 2 * sum(count * num_bytes(layers[net]) for net, count in views.items())
    before, after = map(bytes_by_kind, (alone, together))
    assert after["all-gather"] - before["all-gather"] == 4 * moments  # of four devices
    assert after["all-reduce"] - before["all-reduce"] == moments
    assert after["collective-permute"] == before["collective-permute"]
    passes = {ENCODER: 2, PREDICTOR: 1, REGRESSOR: 2}
    most = 2 * sum(count * len(layers[net]) for net, count in passes.items())
    assert len(together) - len(alone) <= most  # XLA joins some of them


def means(stats):
    """Returns the running means, one vector per batch norm."""
    return [
        leaf
        for path, leaf in jax.tree.leaves_with_path(stats)
        if path[-1] == jax.tree_util.DictKey("mean")
    ]
