"""Solarization, flips, turns, BYOL's augmentations and boxes equal torchvision's.

The file `augment_policies.npz` contains outputs of torchvision 0.29's functions for
float tensors: `solarize` with threshold 0.5 and `vflip` of the image of
`augment_ops.npz`; `rotate` of `square_uint8`, a part of it, by quarter turns; and
`square_uint8` augmented by the two policies of BYOL (Table 6 of
https://arxiv.org/abs/2006.07733) as `byol/VIEW/SEED`, with the changes, factors, order
and sigma that `augment_crop` draws from the key of the seed. `boxes/...` are 4,000
boxes of `RandomResizedCrop.get_params` for an image size, a scale and a ratio.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from logo_jax.augment import CropSpec, augment_crop, color, sample_box
from logo_jax.configs import imagenet100_byol
from logo_jax.experiment import parse
from tests.golden import torch_names as names

if not (names.DATA / "augment_policies.npz").exists():
    pytest.skip(
        f"LOGO_GOLDEN_DIR={names.DATA} has no augment_policies.npz",
        allow_module_level=True,
    )
_GOLDEN = names.load("augment_policies.npz")
_TOLERANCE = 1e-5  # for float sums in another order
_BYOL = [key for key in _GOLDEN if key.startswith("byol/")]


def _planes(image):
    return jnp.asarray(image.transpose(2, 0, 1), jnp.float32) / 255.0


def _assert_pixels(planes, key):
    pixels = np.asarray(planes).transpose(1, 2, 0)
    np.testing.assert_allclose(pixels, _GOLDEN[key], rtol=0, atol=_TOLERANCE)


@pytest.mark.parametrize(
    ("key", "change"),
    [("solarize", color.solarize), ("vflip", color.flip_vertically)],
)
def test_a_change_equals_torchvision(key, change):
    image = names.load("augment_ops.npz")["image_uint8"]
    _assert_pixels(change(_planes(image)), key)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turn_equals_torchvision(turns):
    square = _planes(_GOLDEN["square_uint8"])
    _assert_pixels(color.turn(square, jnp.int32(turns)), f"turn/{turns}")


@pytest.mark.parametrize("key", _BYOL)
def test_byols_augmentation_of_each_view_equals_torchvision(key):
    _, view, seed = key.split("/")
    config = imagenet100_byol.get_config()
    config.augment.mean, config.augment.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    augment = parse(config).augment
    policy = {"first": augment.policy, "second": augment.second}[view]
    square = _planes(_GOLDEN["square_uint8"])
    augmented = jax.jit(functools.partial(augment_crop, spec=policy))(
        jax.random.key(int(seed)), square
    )
    _assert_pixels(augmented, key)


def test_boxes_of_another_aspect_range_are_distributed_as_torchvisions():
    (key,) = (key for key in _GOLDEN if key.startswith("boxes/"))
    size, scale, aspect = key.split("/")[1:]
    height, width = map(int, size.split("x"))
    scale, aspect = (tuple(map(float, x.split(","))) for x in (scale, aspect))
    draw = functools.partial(
        sample_box, size=jnp.array([height, width]), spec=CropSpec(1, 8, scale, aspect)
    )
    boxes = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 20_000))
    for actual, expected in zip(_shapes(boxes), _shapes(_GOLDEN[key]), strict=True):
        assert stats.ks_2samp(actual, expected).pvalue > 1e-3


def _shapes(boxes):
    """Returns area, aspect ratio, and vertical and horizontal center."""
    top, left, height, width = np.asarray(boxes, np.float64).T
    return height * width, width / height, top + height / 2, left + width / 2
