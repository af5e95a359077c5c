"""Image operations equal those of torchvision and Pillow.

The file `augment_ops.npz` contains one image and the outputs of torchvision's tensor
operations (float32) and of Pillow (uint8) for it. The environment variable
LOGO_GOLDEN_DIR may name another folder with this file.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from logo_jax.augment import color, resized_crop
from tests.golden import torch_names as names

if not (names.DATA / "augment_ops.npz").exists():
    pytest.skip(
        f"LOGO_GOLDEN_DIR={names.DATA} has no augment_ops.npz", allow_module_level=True
    )
_GOLDEN = names.load("augment_ops.npz")
# For float sums in another order; one level of 255 is 4e-3.
_TOLERANCE = 1e-5
_WITH_FACTOR = {
    "brightness": color.adjust_brightness,
    "contrast": color.adjust_contrast,
    "saturation": color.adjust_saturation,
    "hue": color.adjust_hue,
    "blur23": color.gaussian_blur,
}
_WITHOUT_FACTOR = {"grayscale": color.grayscale, "hflip": color.flip}


def _image():
    return jnp.asarray(_GOLDEN["image_uint8"].transpose(2, 0, 1), jnp.float32) / 255.0


def _assert_pixels(actual, expected, tolerance):
    actual = np.asarray(actual).transpose(1, 2, 0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def _keys(*operations):
    return [key for key in _GOLDEN if key.split("/")[0] in operations]


def _crops(suffix):
    return [key for key in _keys("resized_crop") if key.endswith(suffix)]


def _box_and_size(key):
    box, size = key.split("/")[1].split("->")
    return [int(number) for number in box.split(",")], int(size)


def _cut(key):
    box, size = _box_and_size(key)
    return resized_crop(_image(), jnp.array(box, jnp.float32), size)


@pytest.mark.parametrize("key", _keys(*_WITH_FACTOR))
def test_adjustment_equals_torchvision(key):
    name, factor = key.split("/")
    adjusted = _WITH_FACTOR[name](_image(), float(factor))
    _assert_pixels(adjusted, _GOLDEN[key], _TOLERANCE)


@pytest.mark.parametrize("key", _keys("blur23"))
def test_blur_by_products_equals_torchvision(key):
    blurred = color.gaussian_blur_by_products(_image(), float(key.split("/")[1]))
    _assert_pixels(blurred, _GOLDEN[key], _TOLERANCE)


@pytest.mark.parametrize("key", _keys(*_WITHOUT_FACTOR))
def test_operation_without_factor_equals_torchvision(key):
    _assert_pixels(_WITHOUT_FACTOR[key](_image()), _GOLDEN[key], _TOLERANCE)


@pytest.mark.parametrize("key", _crops("antialias=True"))
def test_resized_crop_equals_antialiased_torchvision(key):
    _assert_pixels(_cut(key), _GOLDEN[key], _TOLERANCE)


@pytest.mark.parametrize("key", _crops("pillow_uint8"))
def test_resized_crop_equals_pillow_away_from_its_border(key):
    # The expected pixels were made by Image.resize(box=...), with which pixels around
    # the box affect the outermost two pixels of the output.
    inner = slice(2, -2)
    expected = _GOLDEN[key][inner, inner] / 255.0
    _assert_pixels(_cut(key)[:, inner, inner], expected, 1.01 / 255)


@pytest.mark.parametrize("key", _crops("pillow_uint8"))
def test_resized_crop_equals_pillow_that_cuts_first(key):
    (top, left, height, width), size = _box_and_size(key)
    cut = Image.fromarray(_GOLDEN["image_uint8"]).crop(
        (left, top, left + width, top + height)
    )
    expected = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)) / 255.0
    _assert_pixels(_cut(key), expected, 1.01 / 255)


def test_golden_file_covers_every_operation():
    names = {key.split("/")[0] for key in _GOLDEN}
    assert names >= {*_WITH_FACTOR, *_WITHOUT_FACTOR, "resized_crop"}
    assert _crops("antialias=True")
    assert _crops("pillow_uint8")
