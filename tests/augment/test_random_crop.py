import functools
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from logo_jax.augment import CropSpec, center_box, sample_box

_NUM_BOXES = 4000
_NUM_COMPARED = 100_000
_ASPECT = (3 / 4, 4 / 3)


@functools.partial(jax.jit, static_argnames=("spec", "num"))
def _boxes_from(key, size, spec, num):
    draw = functools.partial(sample_box, size=size, spec=spec)
    return jax.vmap(draw)(jax.random.split(key, num))


def _boxes(height, width, scale, aspect=_ASPECT, num=_NUM_BOXES):
    spec = CropSpec(count=1, size=8, scale=scale, aspect=aspect)
    size = jnp.array([height, width])
    return np.asarray(_boxes_from(jax.random.key(0), size, spec, num))


def _torchvision_box(rng, height, width, scale, aspect):
    """RandomResizedCrop.get_params, line by line, with Python's random generator."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.random() * (height - h + 1))
            return top, int(rng.random() * (width - w + 1)), h, w
    if width / height < min(aspect):
        w, h = width, round(width / min(aspect))
    elif width / height > max(aspect):
        w, h = round(height * max(aspect)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def _features(boxes):
    """Returns area, aspect ratio, and vertical and horizontal center."""
    top, left, height, width = np.asarray(boxes, np.float64).T
    return height * width, width / height, top + height / 2, left + width / 2


@pytest.mark.parametrize(
    ("size", "scale", "aspect"),
    [
        ((32, 32), (0.2, 1.0), _ASPECT),
        ((32, 32), (0.05, 0.2), _ASPECT),
        ((375, 500), (0.2, 1.0), _ASPECT),
        ((375, 500), (0.05, 0.2), _ASPECT),
        ((375, 500), (0.2, 1.0), (0.5, 1.0)),  # not symmetric under height / width
    ],
)
def test_boxes_are_distributed_as_torchvisions_loop(size, scale, aspect):
    rng = random.Random(0)
    expected = [
        _torchvision_box(rng, *size, scale, aspect) for _ in range(_NUM_COMPARED)
    ]
    actual = _boxes(*size, scale, aspect, num=_NUM_COMPARED)
    pairs = zip(_features(actual), _features(expected), strict=True)
    p_values = [stats.ks_2samp(*pair).pvalue for pair in pairs]
    assert min(p_values) > 1e-3, p_values


@pytest.mark.parametrize("side", [224, 30_000])
def test_area_is_uniform_in_scale(side):
    boxes = _boxes(side, side, (0.1, 0.5))
    area = boxes[:, 2] * boxes[:, 3] / side**2
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


@pytest.mark.parametrize(
    "size", [(20, 33), (1, 5000), (5000, 1), (2, 3), (30_000, 30_000), (29_999, 41)]
)
def test_boxes_lie_inside_the_image(size):
    boxes = _boxes(*size, (0.01, 1.0), aspect=(0.2, 5.0))
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2:].min() >= 1
    assert np.all(boxes[:, :2] + boxes[:, 2:] <= size)
    np.testing.assert_array_equal(boxes, np.round(boxes))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((10, 100), (0, 43, 10, 13)),  # 13 = round(10 * 4/3)
        ((101, 9), (44, 0, 12, 9)),  # 12 = round(9 / (3/4))
        ((30, 36), (0, 0, 30, 36)),
        ((1, 1), (0, 0, 1, 1)),
        ((30_000, 1), (14_999, 0, 1, 1)),
    ],
)
def test_center_box_clamps_the_aspect_of_the_whole_image(size, expected):
    box = center_box(jnp.array(size), _ASPECT)
    np.testing.assert_array_equal(box, expected)


def test_center_box_rounds_halves_to_even_as_python_does():
    box = center_box(jnp.array([5, 100]), (0.5, 1.5))  # 7.5 wide
    np.testing.assert_array_equal(box, [0, 46, 5, 8])
    box = center_box(jnp.array([3, 100]), (0.5, 1.5))  # 4.5 wide
    np.testing.assert_array_equal(box, [0, 48, 3, 4])


def test_box_falls_back_to_the_center_if_nothing_fits():
    boxes = _boxes(10, 100, (1.0, 1.0))
    np.testing.assert_array_equal(boxes, np.tile([0, 43, 10, 13], (_NUM_BOXES, 1)))


def test_box_is_a_function_of_its_key():
    spec = CropSpec(count=1, size=8, scale=(0.1, 0.9))
    first, again, other = (
        sample_box(jax.random.key(seed), jnp.array([50, 50]), spec)
        for seed in (3, 3, 4)
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
