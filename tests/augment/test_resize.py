import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.augment import resized_crop
from logo_jax.augment._cpu import resized_crop_by_blocks
from logo_jax.augment.resize import triangle_weights

_cut = jax.jit(resized_crop, static_argnums=2)
_cut_by_blocks = jax.jit(resized_crop_by_blocks, static_argnums=2)


def _image(height=12, width=16):
    return jax.random.uniform(jax.random.key(0), (3, height, width))


def test_whole_image_at_its_own_size_is_unchanged():
    image = _image(12, 12)
    cut = resized_crop(image, jnp.array([0.0, 0.0, 12.0, 12.0]), 12)
    np.testing.assert_allclose(cut, image, atol=1e-6)


def test_box_is_top_left_height_width():
    image = _image()
    cut = resized_crop(image, jnp.array([2.0, 5.0, 7.0, 7.0]), 7)
    np.testing.assert_allclose(cut, image[:, 2:9, 5:12], atol=1e-6)


@pytest.mark.parametrize("size", [4, 24])
def test_pixels_outside_the_box_do_not_bleed_in(size):
    box = jnp.array([3.0, 4.0, 6.0, 9.0])
    image = jnp.full((3, 12, 16), 1e6).at[:, 3:9, 4:13].set(0.25)
    np.testing.assert_allclose(resized_crop(image, box, size), 0.25, atol=1e-6)


def test_shrinking_averages_away_a_checkerboard():
    checks = jnp.indices((32, 32)).sum(0) % 2
    image = jnp.broadcast_to(checks.astype(jnp.float32), (3, 32, 32))
    shrunk = resized_crop(image, jnp.array([0.0, 0.0, 32.0, 32.0]), 8)
    np.testing.assert_allclose(shrunk, 0.5, atol=0.02)


@pytest.mark.parametrize(("extent", "size"), [(1, 5), (3, 32), (16, 16), (16, 3)])
def test_weights_of_an_output_pixel_sum_to_one(extent, size):
    weights = triangle_weights(16, size, jnp.float32(0), jnp.float32(extent))
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    assert jnp.all(weights >= 0)


@pytest.mark.parametrize("start", [0.0, 0.3, 0.5, 3.999, 7.0, 15.4])
@pytest.mark.parametrize("extent", [1e-3, 0.01, 0.5, 0.59])
@pytest.mark.parametrize("size", [1, 7])
def test_a_cut_narrower_than_a_pixel_weighs_the_pixels_under_it(start, extent, size):
    weights = triangle_weights(16, size, jnp.float32(start), jnp.float32(extent))
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    touched = range(math.floor(start), math.ceil(start + extent))
    assert set(np.flatnonzero(weights.sum(0))) <= set(touched)


def test_weights_interpolate_between_the_pixels_that_a_fractional_cut_touches():
    weights = triangle_weights(8, 5, jnp.float32(2.75), jnp.float32(2.5))
    positions = weights @ (jnp.arange(8.0) + 0.5)
    np.testing.assert_allclose(positions, 3.0 + 0.5 * np.arange(5), atol=1e-6)


@pytest.mark.parametrize("size", [1, 13, 96])
@pytest.mark.parametrize(
    "box",
    [
        (0.0, 0.0, 40.0, 61.0),
        (39.0, 60.0, 1.0, 1.0),
        (11.3, 20.9, 28.7, 40.1),
        (7.99, 3.0, 0.01, 55.0),
    ],
)
def test_sums_by_blocks_are_the_whole_sums(box, size):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (40, 61, 3), dtype=np.uint8))
    planes = jnp.moveaxis(image, -1, 0).astype(jnp.float32) / 255.0
    expected = _cut(planes, jnp.array(box), size)
    actual = _cut_by_blocks(image, jnp.array(box), size)
    np.testing.assert_allclose(actual, expected, atol=5e-6)
