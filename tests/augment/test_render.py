import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from logo_jax.augment import CropSpec, make_views
from logo_jax.augment._cpu import one_by_one
from logo_jax.augment.multi_crop import all_at_once, render
from tests.augment.specs import spec

_KEY = jax.random.key(7)
_CUT_ONLY = spec(flip_prob=0.0, jitter_prob=0.0, grayscale_prob=0.0)
_EVERYTHING = spec(
    vertical_flip_prob=0.5,
    quarter_turns_prob=0.5,
    grayscale_prob=0.5,
    blur_prob=0.5,
    solarize_prob=0.5,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
_SECOND = spec(solarize_prob=0.2)
_CROPS = {
    "global_crops": CropSpec(count=2, size=12, scale=(0.4, 1.0)),
    "local_crops": CropSpec(count=1, size=12, scale=(0.1, 0.4)),
}


def _images(num, height=18, width=23):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(0, 256, (num, height, width, 3), dtype=np.uint8))


def _crops(num_images, num_crops):
    """Returns images, boxes and keys."""
    rng = np.random.default_rng(1)
    shape = (num_images, num_crops, 2)
    ends = np.sort(rng.uniform(0, 1, (2, *shape)), axis=0) * np.array([18, 23])
    boxes = np.concatenate([ends[0], ends[1] - ends[0]], axis=-1)
    keys = jax.random.split(_KEY, shape[:2])
    return _images(num_images), jnp.asarray(boxes, jnp.float32), keys


def _noisy(key, image):
    """A change of one's own."""
    return 0.9 * image + 0.1 * jax.random.uniform(key, image.shape)


def _views(key, images, ids):
    sizes = jnp.tile(jnp.array([images.shape[1:3]]), (len(images), 1))
    how = {"augment": _EVERYTHING, "second": _SECOND, "extra": _noisy}
    return make_views(key, images, sizes, ids, **_CROPS, **how)


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, 32])
def test_one_by_one_renders_the_same_crops_as_all_at_once(size):
    forms = (
        jax.jit(functools.partial(form, size=size, augment=_EVERYTHING, extra=_noisy))
        for form in (one_by_one, all_at_once)
    )
    actual, expected = (form(*_crops(8, 3)) for form in forms)
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    assert actual.shape == (8, 3, size, size, 3)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
def test_only_on_the_cpu_crops_are_rendered_in_a_loop(platform, loops):
    traced = jax.jit(functools.partial(render, size=8, augment=_CUT_ONLY)).trace(
        *_crops(2, 3)
    )
    lowered = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in lowered) == loops


@pytest.mark.slow
def test_views_on_four_devices_are_those_on_one():
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    split = PartitionSpec("data")
    specs = {"in_specs": (PartitionSpec(), split, split), "out_specs": split}
    arguments = (_KEY, _images(8), jnp.arange(8))
    expected = jax.jit(_views)(*arguments)
    actual = jax.jit(jax.shard_map(_views, mesh=mesh, **specs))(*arguments)
    for sharded, whole in zip(actual, expected, strict=True):
        np.testing.assert_allclose(sharded, whole, atol=1e-5)


@pytest.mark.slow
def test_views_of_two_seeds_together_equal_those_of_each_alone():
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    split = PartitionSpec(None, "data")
    specs = {"in_specs": (PartitionSpec(), split, split), "out_specs": split}
    keys, ids = jax.random.split(_KEY), jnp.arange(8).reshape(2, 4)
    images = _images(8).reshape(2, 4, 18, 23, 3)
    together = jax.jit(jax.shard_map(jax.vmap(_views), mesh=mesh, **specs))
    alone = jax.jit(_views)
    actual = together(keys, images, ids)
    for seed in range(2):
        expected = alone(keys[seed], images[seed], ids[seed])
        for both, one in zip(actual, expected, strict=True):
            np.testing.assert_allclose(both[seed], one, atol=2e-5)
