import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.evaluation.features import extract


def data_set(size):
    images = np.arange(size * 12).reshape(size, 2, 2, 3).astype(np.uint8)
    return images, np.arange(size, dtype=np.int32)[::-1].copy()


def pixels(images):
    """Every pixel as a feature, and one that looks at the whole batch."""
    flat = jnp.asarray(images, jnp.float32).reshape(len(images), -1)
    return {"pixels": flat, "first": flat[:, :1]}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8])
def test_every_example_comes_once_in_order_with_its_label(batch_size):
    images, labels = data_set(7)
    found = extract(pixels, images, labels, batch_size=batch_size)
    np.testing.assert_array_equal(found["pixels"].features, images.reshape(7, -1))
    np.testing.assert_array_equal(found["first"].features, images[:, 0, 0, :1])
    for features in found.values():
        np.testing.assert_array_equal(features.labels, labels)


def test_every_call_has_the_full_batchs_shape():
    images, labels = data_set(7)
    shapes = []

    def encode(batch):
        shapes.append(batch.shape)
        return pixels(batch)

    extract(encode, images, labels, batch_size=4)
    assert shapes == [(4, 2, 2, 3)] * 2
