"""Images of several sizes on canvases of one size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from logo_jax.augment import CropSpec, crop_boxes, make_views
from tests.augment.specs import spec

_KEY = jax.random.key(7)
_CROPS = {
    "global_crops": CropSpec(count=2, size=24, scale=(0.3, 1.0)),
    "local_crops": CropSpec(count=3, size=12, scale=(0.05, 0.3)),
}
_CUT_ONLY = dataclasses.replace(
    spec().without_changes(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)


@functools.partial(jax.jit, static_argnames="augment")
def _jitted(images, sizes, ids, augment):
    return make_views(_KEY, images, sizes, ids, **_CROPS, augment=augment)


def _views(canvas, size, num=20, augment=_CUT_ONLY):
    """Returns the crops of one image under many ids."""
    images = jnp.tile(jnp.asarray(canvas)[None], (num, 1, 1, 1))
    sizes = jnp.tile(jnp.array([size]), (num, 1))
    return _jitted(images, sizes, jnp.arange(num), augment)


def _noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _on_canvas(image, height, width, seed=1):
    canvas = _noise(height, width, seed)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def _blurred_photograph(height, width):
    coarse = Image.fromarray(_noise(max(2, height // 40), max(2, width // 40)))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def _squeezed(image, side):
    size = (min(image.width, side), min(image.height, side))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(19, 27), (19, 32), (40, 1), (1, 1)])
def test_crops_do_not_depend_on_the_canvas_outside_their_image(size):
    image = _noise(*size)
    augment = spec(blur_prob=0.5)
    views, others = (
        _views(_on_canvas(image, 40, 32, seed), size, augment=augment)
        for seed in (1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, views, others)


@pytest.mark.parametrize("size", [(19, 27), (40, 1)])
def test_crops_of_an_image_on_a_canvas_are_those_of_the_image_alone(size):
    image = _noise(*size)
    on_canvas = _views(_on_canvas(image, 40, 32), size)
    for actual, expected in zip(on_canvas, _views(image, size), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(250, 190), (40, 200)])
def test_crops_of_a_squeezed_image_are_nearly_those_of_the_original(size):
    image = _blurred_photograph(*size)
    canvas = _on_canvas(_squeezed(image, 64), 64, 64)
    squeezed, original = _views(canvas, size), _views(np.asarray(image), size)
    for actual, expected in zip(squeezed, original, strict=True):
        error = np.mean((actual - expected) ** 2, axis=(2, 3, 4))
        assert -10 * np.log10(error.max()) > 38  # dB, of the worst crop


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (30_000, 30_000)])
def test_crops_of_a_sliver_show_its_own_pixels(size):
    stored = np.full((min(size[0], 32), min(size[1], 32), 3), 51, np.uint8)
    for views in _views(_on_canvas(stored, 32, 32), size):
        np.testing.assert_allclose(views, 0.2, atol=1e-6)


def test_boxes_in_a_batch_are_those_of_each_size_alone():
    sizes = np.array([[375, 500], [32, 32], [1, 900], [4000, 3000]], np.int32)
    ids = jnp.array([3, 3, 8, 1])
    draw = jax.jit(functools.partial(crop_boxes, _KEY, **_CROPS))
    together = draw(ids, sizes)
    alone = [draw(ids[i : i + 1], sizes[i : i + 1]) for i in range(4)]
    for actual, expected in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(actual, jnp.concatenate(expected))
    ends = np.asarray(together[0][..., :2] + together[0][..., 2:])
    assert np.all(ends <= sizes[:, None])
    assert np.all(ends.max(1) > 0.3 * sizes)  # not pixels of a canvas
