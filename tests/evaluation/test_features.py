import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.evaluation.features import extract


class InParts:
    """A data set that yields batches of the given sizes."""

    def __init__(self, *sizes):
        n = sum(sizes)
        self.images = np.arange(n * 12).reshape(n, 2, 2, 3).astype(np.uint8)
        self.labels = np.arange(n, dtype=np.int32)[::-1].copy()
        self.ends = np.cumsum(sizes)

    def __len__(self):
        return len(self.labels)

    def batches(self):
        for start, end in zip([0, *self.ends], self.ends, strict=False):
            yield self.images[start:end], self.labels[start:end]


def pixels(images):
    """Encoder with two layers: all pixels, and the first pixel of each image."""
    flat = jnp.asarray(images, jnp.float32).reshape(len(images), -1)
    return {"pixels": flat, "first": flat[:, :1]}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8])
@pytest.mark.parametrize("sizes", [(7,), (2, 0, 4, 1), (3, 4)])
def test_every_example_comes_once_in_order_with_its_label(batch_size, sizes):
    data = InParts(*sizes)
    found = extract(pixels, data, batch_size=batch_size)
    np.testing.assert_array_equal(found["pixels"].features, data.images.reshape(7, -1))
    np.testing.assert_array_equal(found["first"].features, data.images[:, 0, 0, :1])
    for features in found.values():
        np.testing.assert_array_equal(features.labels, data.labels)


def test_every_call_of_the_encoder_has_a_full_batch():
    shapes = []

    def encode(batch):
        shapes.append(batch.shape)
        return pixels(batch)

    extract(encode, InParts(5, 2), batch_size=4)
    assert shapes == [(4, 2, 2, 3)] * 2
