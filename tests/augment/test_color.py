import dataclasses
import functools

import jax
import numpy as np
import pytest

from logo_jax.augment import augment_crop, color
from tests.augment import specs

_KEY = jax.random.key(7)
_NOTHING = specs.spec(
    flip_prob=0.0,
    jitter_prob=0.0,
    grayscale_prob=0.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def _planes(height=6, width=8):
    return jax.random.uniform(jax.random.key(0), (3, height, width))


def _augmented(spec, num):
    augment = functools.partial(augment_crop, planes=_planes(), spec=spec)
    return jax.jit(jax.vmap(augment))(jax.random.split(_KEY, num))


def test_augmentation_of_probability_zero_only_normalizes():
    spec = dataclasses.replace(_NOTHING, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = color.normalize(_planes(), spec.mean, spec.std)
    np.testing.assert_allclose(augment_crop(_KEY, _planes(), spec), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("flip_prob", lambda planes: planes[:, :, ::-1]),
        ("grayscale_prob", color.grayscale),
    ],
)
def test_a_step_happens_with_its_probability(name, change):
    augmented = _augmented(dataclasses.replace(_NOTHING, **{name: 0.3}), num=1000)
    changed = np.abs(augmented - change(_planes())[None]).max((1, 2, 3)) < 1e-5
    same = np.abs(augmented - _planes()[None]).max((1, 2, 3)) < 1e-5
    assert np.all(changed ^ same)
    assert abs(changed.mean() - 0.3) < 0.06


@pytest.mark.parametrize("name", ["jitter_prob", "blur_prob"])
def test_a_random_step_happens_with_its_probability(name):
    augmented = _augmented(dataclasses.replace(_NOTHING, **{name: 0.3}), num=1000)
    same = np.abs(augmented - _planes()[None]).max((1, 2, 3)) < 1e-5
    # A sigma below about 0.2, one in twenty, blurs nothing.
    assert abs((1 - same.mean()) - 0.3) < 0.08


def test_color_is_jittered_before_grayscale():
    spec = dataclasses.replace(
        _NOTHING, jitter=(0.0, 0.0, 0.0, 0.5), jitter_prob=1.0, grayscale_prob=1.0
    )
    augmented = _augmented(spec, num=20)
    np.testing.assert_allclose(augmented[:, 0], augmented[:, 1], atol=1e-6)
    # If grayscale came first, a hue shift would do nothing: twenty equal crops.
    assert augmented.std(0).mean() > 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip_prob": 1.5}, "flip_prob=1.5 must be a number from 0"),
        ({"blur_prob": -0.1}, "blur_prob=-0.1 must be a number from 0"),
        ({"jitter": (0.4, 0.4, -0.4, 0.1)}, "jitter=.* must be four strengths"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "hue at most 0.5"),
        ({"blur_sigma": (0.0, 2.0)}, "blur_sigma=.* must satisfy 0 < min <= max"),
        ({"std": (0.2, 0.0, 0.2)}, "std=.* std must be positive"),
    ],
)
def test_augment_spec_names_the_bad_value(changes, message):
    with pytest.raises(ValueError, match=message):
        specs.spec(**changes)
