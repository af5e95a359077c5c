"""Shuffling: devices encode other images, and embeddings return to their places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from logo_jax.methods.shuffle_bn import encode_shuffled
from logo_jax.parallel.mesh import AXIS, make_mesh

DEVICES = 4


def shuffle(rows, seed, num_devices=DEVICES):
    """Shuffles images numbered from 0; returns the images that each device encoded."""
    mesh = make_mesh(jax.devices()[:num_devices])
    numbers = jnp.arange(num_devices * rows)

    def encode(views):
        return jnp.stack([view[:, None] for view in views]), views[0]

    mapped = jax.shard_map(
        lambda x: encode_shuffled(encode, [x, 100 + x], jax.random.key(seed)),
        mesh=mesh,
        in_specs=P(AXIS),
        out_specs=(P(None, AXIS), P(AXIS)),
    )
    returned, encoded = jax.jit(mapped)(numbers)
    np.testing.assert_array_equal(returned[..., 0], [numbers, 100 + numbers])
    return np.asarray(encoded).reshape(num_devices, rows)


@pytest.mark.parametrize(
    "rows", [8, 6, 2]
)  # 6: unequal chunks; 2: fewer rows than devices
def test_each_image_is_encoded_once_and_its_embedding_returns(rows):
    encoded = shuffle(rows, seed=0)
    np.testing.assert_array_equal(
        np.sort(encoded, axis=None), np.arange(DEVICES * rows)
    )
    stayed = [np.mean(batch // rows == i) for i, batch in enumerate(encoded)]
    assert max(stayed) <= 0.5


def test_every_device_gets_an_equal_share_of_every_devices_images():
    origins = shuffle(8, seed=0) // 8
    for batch in origins:
        np.testing.assert_array_equal(np.bincount(batch), np.full(DEVICES, 2))


def test_which_images_are_exchanged_is_random():
    first, second = (np.sort(shuffle(8, seed)) for seed in (0, 1))
    assert (first != second).any()


def test_one_device_permutes_its_own_images():
    (order,) = shuffle(16, seed=0, num_devices=1)
    assert (order != np.arange(16)).any()
