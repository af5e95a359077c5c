import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.augment import CropSpec, centre_box, sample_box

_NUM_BOXES = 4000


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _boxes_from(key, height, width, spec):
    draw = functools.partial(sample_box, height=height, width=width, spec=spec)
    return jax.vmap(draw)(jax.random.split(key, _NUM_BOXES))


def _boxes(height, width, scale, aspect=(3 / 4, 4 / 3)):
    spec = CropSpec(count=1, size=8, scale=scale, aspect=aspect)
    return np.asarray(_boxes_from(jax.random.key(0), height, width, spec))


def _torchvision_box(rng, height, width, scale, aspect):
    """RandomResizedCrop.get_params, line by line, with NumPy's generator."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(*np.log(aspect)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return top, left, h, w
    if width / height < min(aspect):
        w, h = width, round(width / min(aspect))
    elif width / height > max(aspect):
        w, h = round(height * max(aspect)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(32, 32, (0.2, 1.0)), (30, 90, (0.5, 1.0)), (64, 40, (0.05, 0.4))],
)
def test_boxes_are_distributed_as_torchvisions_loop(height, width, scale):
    aspect = (3 / 4, 4 / 3)
    rng = np.random.default_rng(0)
    expected = np.array(
        [_torchvision_box(rng, height, width, scale, aspect) for _ in range(_NUM_BOXES)]
    )
    actual = _boxes(height, width, scale)
    # Five standard errors of a difference of two sample means.
    error = 5 * expected.std(0) * math.sqrt(2 / _NUM_BOXES) + 1e-3
    assert np.all(np.abs(actual.mean(0) - expected.mean(0)) < error)
    np.testing.assert_allclose(actual.std(0), expected.std(0), rtol=0.08, atol=1e-3)


def test_area_is_uniform_in_scale():
    boxes = _boxes(224, 224, (0.1, 0.5))
    area = boxes[:, 2] * boxes[:, 3] / 224**2
    expected = np.quantile(np.linspace(0.1, 0.5, 101), [0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(area, [0.1, 0.5, 0.9]), expected, atol=0.02)
    assert area.min() > 0.1 - 0.01
    assert area.max() < 0.5 + 0.01


def test_aspect_is_log_uniform_in_its_range():
    boxes = _boxes(224, 224, (0.2, 0.4), aspect=(0.5, 2.0))
    log_aspect = np.log(boxes[:, 3] / boxes[:, 2]) / np.log(2.0)
    quantiles = np.quantile(log_aspect, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quantiles, [-0.5, 0.0, 0.5], atol=0.06)
    assert np.abs(log_aspect).max() < 1.03


def test_aspect_is_width_over_height():
    boxes = _boxes(100, 100, (0.18, 0.18), aspect=(2.0, 2.0))
    np.testing.assert_array_equal(boxes[:, 2:], np.tile([30, 60], (_NUM_BOXES, 1)))


def test_every_whole_pixel_offset_is_equally_likely():
    boxes = _boxes(4, 4, (0.25, 0.25), aspect=(1.0, 1.0))
    places, counts = np.unique(boxes[:, :2], axis=0, return_counts=True)
    grid = [[top, left] for top in range(3) for left in range(3)]
    np.testing.assert_array_equal(places, grid)
    np.testing.assert_allclose(counts / _NUM_BOXES, 1 / 9, atol=0.025)


def test_boxes_lie_inside_the_image():
    boxes = _boxes(20, 33, (0.01, 1.0), aspect=(0.2, 5.0))
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2:].min() >= 1
    assert np.all(boxes[:, :2] + boxes[:, 2:] <= [20, 33])
    np.testing.assert_array_equal(boxes, np.round(boxes))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (10, 100, (0, 43, 10, 13)),  # 13 = round(10 * 4/3)
        (101, 9, (44, 0, 12, 9)),  # 12 = round(9 / (3/4))
        (30, 36, (0, 0, 30, 36)),
        (1, 1, (0, 0, 1, 1)),
    ],
)
def test_centre_box_clamps_the_aspect_of_the_whole_image(height, width, expected):
    box = centre_box(height, width, (3 / 4, 4 / 3))
    np.testing.assert_array_equal(box, expected)


def test_box_falls_back_to_the_centre_where_nothing_fits():
    boxes = _boxes(10, 100, (1.0, 1.0))
    np.testing.assert_array_equal(boxes, np.tile([0, 43, 10, 13], (_NUM_BOXES, 1)))


def test_box_is_a_function_of_its_key():
    spec = CropSpec(count=1, size=8, scale=(0.1, 0.9))
    first, again, other = (
        sample_box(jax.random.key(seed), 50, 50, spec) for seed in (3, 3, 4)
    )
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": -1}, "count=-1 must not be negative"),
        ({"size": 0}, "size=0 must be at least 1"),
        ({"scale": (0.0, 1.0)}, "scale=.* must satisfy 0 < min <= max <= 1"),
        ({"scale": (0.5, 0.4)}, "scale=.* must satisfy 0 < min <= max <= 1"),
        ({"scale": (0.5, 1.1)}, "scale=.* must satisfy 0 < min <= max <= 1"),
        ({"aspect": (0.0, 1.0)}, "aspect=.* must satisfy 0 < min <= max"),
        ({"aspect": (2.0, 1.0)}, "aspect=.* must satisfy 0 < min <= max"),
    ],
)
def test_crop_spec_names_the_bad_value(changes, message):
    good = {"count": 2, "size": 32, "scale": (0.2, 1.0)}
    with pytest.raises(ValueError, match=message):
        CropSpec(**(good | changes))
