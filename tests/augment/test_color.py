import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.augment import augment_crop, color
from tests.augment import specs

_KEY = jax.random.key(7)
_NOTHING = dataclasses.replace(
    specs.spec().without_changes(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
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
        ("vertical_flip_prob", lambda planes: planes[:, ::-1]),
        ("grayscale_prob", color.grayscale),
        ("solarize_prob", color.solarize),
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


def test_each_of_four_turns_is_equally_likely():
    square = _planes(6, 6)
    spec = dataclasses.replace(_NOTHING, quarter_turns_prob=1.0)
    augment = functools.partial(augment_crop, planes=square, spec=spec)
    turned = jax.jit(jax.vmap(augment))(jax.random.split(_KEY, 2000))
    by = np.stack([np.rot90(square, k, axes=(1, 2)) for k in range(4)])
    equal = np.abs(turned[:, None] - by[None]).max((2, 3, 4)) < 1e-6
    np.testing.assert_array_equal(equal.sum(1), 1)
    # 4 standard deviations of a share of 2000 draws
    np.testing.assert_allclose(equal.mean(0), 1 / 4, atol=0.039)


def test_the_random_key_of_a_change_never_moves():
    """Results of existing configs depend on the keys, in the order of the changes."""
    by_number = {
        "grayscale_prob": 1,
        "flip_prob": 3,
        "solarize_prob": 4,
        "vertical_flip_prob": 5,
    }
    # Four is the number of changes of the first version.
    keys = jax.vmap(lambda key: jax.random.split(key, 4))(jax.random.split(_KEY, 50))
    eight = jax.vmap(lambda key: jax.random.split(key, 8))(jax.random.split(_KEY, 50))
    assert jnp.array_equal(eight[:, :4], keys)
    for name, number in by_number.items():
        augmented = _augmented(dataclasses.replace(_NOTHING, **{name: 0.5}), num=50)
        changed = np.abs(augmented - _planes()[None]).max((1, 2, 3)) > 1e-5
        coins = jax.vmap(lambda key: jax.random.split(key)[0])(eight[:, number])
        expected = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5))(coins)
        np.testing.assert_array_equal(changed, expected, err_msg=name)


def test_a_change_of_ones_own_is_the_last_before_the_normalization():
    spec = dataclasses.replace(
        _NOTHING, solarize_prob=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )

    def brighten_one_row(key, image):
        del key
        assert image.shape == (6, 8, 3)
        return image.at[2].set(1.0)

    augmented = augment_crop(_KEY, _planes(), spec, extra=brighten_one_row)
    solarized = jnp.where(_planes() < 0.5, _planes(), 1.0 - _planes())
    expected = solarized.at[:, 2].set(1.0) / 0.5 - 1.0
    np.testing.assert_allclose(augmented, expected, atol=1e-6)


def test_a_change_of_ones_own_has_its_own_key_for_each_crop():
    noise = functools.partial(
        augment_crop,
        planes=_planes(),
        spec=_NOTHING,
        extra=lambda key, image: jax.random.uniform(key, image.shape),
    )
    drawn = jax.jit(jax.vmap(noise))(jax.random.split(_KEY, 20))
    assert len(np.unique(drawn)) > 0.99 * drawn.size


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
        ({"solarize_prob": 1.1}, "solarize_prob=1.1 must be a number from 0"),
        ({"quarter_turns_prob": 2.0}, "quarter_turns_prob=2.0 must be a number from 0"),
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
