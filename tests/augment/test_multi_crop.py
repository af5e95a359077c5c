import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.augment import (
    CropSpec,
    crop_boxes,
    make_views,
    prepare_eval,
    resized_crop,
)
from tests.augment.specs import spec

_KEY = jax.random.key(7)
_GLOBAL = CropSpec(count=2, size=12, scale=(0.4, 1.0))
_LOCAL = CropSpec(count=3, size=8, scale=(0.1, 0.4))
_NOTHING = dataclasses.replace(
    spec().without_changes(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
_EVERYTHING = spec(blur_prob=0.5, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_IDS = jnp.array([5, 11, 2, 40])


def _images(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, 256, (4, 16, 20, 3), dtype=np.uint8))


@functools.cache
def _jitted(augment=_EVERYTHING, local_crops=_LOCAL):
    return jax.jit(
        functools.partial(
            make_views,
            global_crops=_GLOBAL,
            local_crops=local_crops,
            augment=augment,
        )
    )


def _sizes(height, width, num=4):
    return jnp.tile(jnp.array([[height, width]]), (num, 1))


def _views(images, ids, key=_KEY, augment=_EVERYTHING, local_crops=_LOCAL):
    sizes = _sizes(*images.shape[1:3], len(images))
    return _jitted(augment, local_crops)(key, images, sizes, ids)


@functools.partial(jax.jit, static_argnames="local_crops")
def _boxes_of(sizes, ids, local_crops=_LOCAL):
    return crop_boxes(_KEY, ids, sizes, global_crops=_GLOBAL, local_crops=local_crops)


def _boxes(ids, height, width, local_crops=_LOCAL):
    return _boxes_of(_sizes(height, width, len(ids)), ids, local_crops)


def _to_planes(image):
    return jnp.asarray(np.asarray(image).transpose(2, 0, 1), jnp.float32) / 255.0


@pytest.mark.slow
def test_views_have_the_sizes_and_counts_of_their_specs():
    global_views, local_views = _views(_images(), _IDS)
    assert global_views.shape == (4, 2, 12, 12, 3)
    assert local_views.shape == (4, 3, 8, 8, 3)
    assert global_views.dtype == local_views.dtype == jnp.float32


@pytest.mark.parametrize("size", [8, 12])
def test_no_local_crops_is_an_empty_array(size):
    none = CropSpec(count=0, size=size, scale=(0.1, 0.4))
    views = _views(_images(), _IDS, augment=_NOTHING, local_crops=none)
    assert views[1].shape == (4, 0, size, size, 3)
    expected = _views(_images(), _IDS, augment=_NOTHING)
    np.testing.assert_allclose(views[0], expected[0], atol=1e-6)


@pytest.mark.slow
def test_crops_of_one_size_are_the_crops_of_two_passes():
    same_size = dataclasses.replace(_LOCAL, size=_GLOBAL.size)
    together = _views(_images(), _IDS, augment=_NOTHING, local_crops=same_size)
    apart = _views(_images(), _IDS, augment=_NOTHING)
    np.testing.assert_allclose(together[0], apart[0], atol=1e-6)
    boxes = _boxes(_IDS, 16, 20, same_size)
    cut = resized_crop(_to_planes(_images()[1]), boxes[1][1, 2], 12)
    np.testing.assert_allclose(together[1][1, 2].transpose(2, 0, 1), cut, atol=1e-6)


def test_same_key_gives_the_same_views_and_another_epoch_others():
    first, again = _views(_images(), _IDS), _views(_images(), _IDS)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = _views(_images(), _IDS, jax.random.key(8))
    assert not np.allclose(first[0], other[0])


def test_permuting_the_batch_permutes_its_views():
    order = jnp.array([2, 0, 3, 1])
    views = _views(_images(), _IDS)
    permuted = _views(_images()[order], _IDS[order])
    for expected, actual in zip(views, permuted, strict=True):
        np.testing.assert_array_equal(actual, expected[order])


@pytest.mark.slow
def test_views_of_an_example_do_not_depend_on_the_rest_of_its_batch():
    views = _views(_images(), _IDS)
    alone = _views(_images()[2:3], _IDS[2:3])
    for expected, actual in zip(views, alone, strict=True):
        np.testing.assert_allclose(actual, expected[2:3], atol=1e-5)


def test_examples_and_crops_draw_different_boxes():
    for group in _boxes(jnp.arange(200), 224, 224):
        flat = np.asarray(group).reshape(-1, 4)
        assert len(np.unique(flat, axis=0)) == len(flat)


def test_views_are_cut_at_the_reported_boxes():
    # Each pixel's value is its position, so that a shifted box is detected.
    rows, columns = np.meshgrid(np.arange(16), np.arange(20), indexing="ij")
    image = np.stack([rows * 12, columns * 12, rows + columns], axis=-1)
    images = jnp.asarray(np.tile(image[None], (4, 1, 1, 1)), jnp.uint8)
    boxes = _boxes(_IDS, 16, 20)
    views = _views(images, _IDS, augment=_NOTHING)
    for group_boxes, group in zip(boxes, views, strict=True):
        for index in np.ndindex(group.shape[:2]):
            cut = resized_crop(_to_planes(image), group_boxes[index], group.shape[2])
            np.testing.assert_allclose(group[index], cut.transpose(1, 2, 0), atol=1e-5)


def test_global_and_local_boxes_keep_to_their_own_area_range():
    global_boxes, local_boxes = _boxes(jnp.arange(200), 224, 224)
    global_area = global_boxes[..., 2] * global_boxes[..., 3] / 224**2
    local_area = local_boxes[..., 2] * local_boxes[..., 3] / 224**2
    assert global_area.min() > 0.39
    assert local_area.max() < 0.41
    assert local_area.min() > 0.09


def test_pixels_stay_in_the_normalized_range_of_zero_to_one():
    for views in _views(_images(), _IDS):
        assert views.min() >= -1 - 1e-5
        assert views.max() <= 1 + 1e-5


def _solarized(num_global, local_crops, first, second, num=600):
    """Whether each crop of `num` white images is solarized, [num, crops].

    A white image that is solarized is black.
    """
    images = jnp.full((num, 4, 4, 3), 255, jnp.uint8)
    views = jax.jit(
        functools.partial(
            make_views,
            global_crops=CropSpec(count=num_global, size=3, scale=(0.4, 1.0)),
            local_crops=local_crops,
            augment=dataclasses.replace(_NOTHING, solarize_prob=first),
            second=dataclasses.replace(_NOTHING, solarize_prob=second),
        )
    )(_KEY, images, _sizes(4, 4, num), jnp.arange(num))
    levels = np.concatenate([np.asarray(x).mean((2, 3, 4)) for x in views], axis=1)
    assert np.all((np.abs(levels) < 1e-5) ^ (np.abs(levels - 1) < 1e-5))
    return levels < 0.5


@pytest.mark.parametrize("num_global", [2, 3])
@pytest.mark.parametrize("local_size", [2, 3])  # with the global crops' size, or not
def test_the_second_policy_is_that_of_the_second_global_crop_only(
    num_global, local_size
):
    local = CropSpec(count=2, size=local_size, scale=(0.1, 0.4))
    solarized = _solarized(num_global, local, first=0.0, second=1.0)
    expected = np.arange(num_global + 2) == 1
    np.testing.assert_array_equal(solarized, np.tile(expected, (600, 1)))


def test_each_view_is_changed_with_its_own_probability_and_independently():
    local = CropSpec(count=2, size=2, scale=(0.1, 0.4))
    solarized = _solarized(2, local, first=0.2, second=0.5)
    # 4 standard deviations of a share of 600 draws
    expected = np.array([0.2, 0.5, 0.2, 0.2])
    bound = 4 * np.sqrt(expected * (1 - expected) / 600)
    assert np.all(np.abs(solarized.mean(0) - expected) < bound)
    correlations = np.corrcoef(solarized.T) - np.eye(4)
    assert np.abs(correlations).max() < 4 / np.sqrt(600)


@pytest.mark.slow
@pytest.mark.parametrize("local_crops", [_LOCAL, dataclasses.replace(_LOCAL, count=0)])
def test_a_second_policy_that_is_the_first_changes_nothing(local_crops):
    policy = dataclasses.replace(_NOTHING, flip_prob=0.5, grayscale_prob=0.5)
    expected = _views(_images(), _IDS, augment=policy, local_crops=local_crops)
    specs = {"global_crops": _GLOBAL, "local_crops": local_crops}
    views = functools.partial(make_views, augment=policy, second=policy, **specs)
    actual = jax.jit(views)(_KEY, _images(), _sizes(16, 20), _IDS)
    for with_second, without in zip(actual, expected, strict=True):
        np.testing.assert_allclose(with_second, without, atol=1e-6)


def test_a_change_of_ones_own_is_made_to_every_crop_of_every_policy():
    specs = {"global_crops": _GLOBAL, "local_crops": _LOCAL}
    how = {"extra": lambda key, image: jnp.full_like(image, 0.25)}
    views = functools.partial(
        make_views, augment=_NOTHING, second=_NOTHING, **specs, **how
    )
    for group in jax.jit(views)(_KEY, _images(), _sizes(16, 20), _IDS):
        np.testing.assert_allclose(group, 0.25, atol=1e-6)


def test_prepare_eval_only_scales_and_normalizes():
    augment = spec(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = (np.asarray(_images()) / 255.0 - augment.mean) / augment.std
    np.testing.assert_allclose(prepare_eval(_images(), augment), expected, atol=1e-5)
