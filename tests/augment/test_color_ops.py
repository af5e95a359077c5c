import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax.augment import color
from tests.augment.specs import spec


def _image(height=14, width=18):
    return jax.random.uniform(jax.random.key(0), (3, height, width))


@functools.partial(jax.jit, static_argnums=2)
def _jittered(keys, image, strengths):
    return jax.vmap(lambda key: color.jitter(key, image, strengths))(keys)


_ADJUST = (
    jax.jit(color.adjust_brightness),
    jax.jit(color.adjust_contrast),
    jax.jit(color.adjust_saturation),
    jax.jit(color.adjust_hue),
)
_recolor = jax.jit(color.recolor)
_IDENTITY = (1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("adjust", "neutral"), list(zip(_ADJUST, _IDENTITY, strict=True))
)
def test_neutral_factor_changes_nothing(adjust, neutral):
    np.testing.assert_allclose(adjust(_image(), neutral), _image(), atol=1e-6)


def test_jitter_of_zero_strength_changes_nothing():
    keys = jax.random.key(1)[None]
    (jittered,) = _jittered(keys, _image(), (0.0, 0.0, 0.0, 0.0))
    np.testing.assert_allclose(jittered, _image(), atol=1e-6)


def test_recolor_applies_the_adjustments_in_every_order():
    factors = jnp.array([1.3, 0.6, 1.4, 0.09])
    for order in itertools.permutations(range(4)):
        expected = _image()
        for op in order:
            expected = _ADJUST[op](expected, factors[op])
        actual = _recolor(_image(), factors, jnp.array(order))
        np.testing.assert_allclose(actual, expected, atol=1e-5, err_msg=str(order))


def test_recolor_of_a_batch_uses_each_images_own_order_and_factors():
    images = jnp.stack([_image(), _image()[:, ::-1]])
    factors = jnp.array([[1.3, 0.6, 1.4, 0.09], [0.7, 1.2, 0.8, -0.1]])
    orders = jnp.array([[3, 1, 0, 2], [0, 2, 1, 3]])
    batched = jax.jit(jax.vmap(color.recolor))(images, factors, orders)
    singly = [_recolor(*row) for row in zip(images, factors, orders, strict=True)]
    np.testing.assert_allclose(batched, jnp.stack(singly), atol=1e-6)


def test_jitter_draws_each_factor_from_its_own_range():
    gray = jnp.full((3, 4, 4), 0.5)  # contrast, saturation and hue cannot change it
    keys = jax.random.split(jax.random.key(0), 2000)
    strengths = (0.4, 0.9, 0.9, 0.5)
    levels = _jittered(keys, gray, strengths).mean((1, 2, 3))
    quantiles = np.quantile(levels / 0.5, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(quantiles, [0.6, 0.8, 1.0, 1.2, 1.4], atol=0.04)


def test_jitter_never_draws_a_negative_factor():
    image = jnp.full((3, 4, 4), 0.5).at[0].set(0.1)
    keys = jax.random.split(jax.random.key(0), 500)
    jittered = _jittered(keys, image, (0.0, 0.0, 3.0, 0.0))
    assert jnp.all(jittered[:, 0] <= jittered[:, 1] + 1e-6)  # otherwise red is largest


def test_colors_stay_between_black_and_white():
    keys = jax.random.split(jax.random.key(0), 50)
    jittered = _jittered(keys, _image(), (0.9, 0.9, 0.9, 0.5))
    assert jittered.min() >= 0
    assert jittered.max() <= 1


@pytest.mark.parametrize("shift", [1 / 3, -1 / 3])
def test_a_third_of_a_turn_in_hue_permutes_the_channels(shift):
    turned = color.adjust_hue(_image(), shift)
    np.testing.assert_allclose(
        turned, jnp.roll(_image(), round(3 * shift), axis=0), atol=1e-5
    )


def test_solarize_inverts_the_bright_values_only():
    values = jnp.array([0.0, 0.2, 0.49, 0.5, 0.7, 1.0])
    planes = jnp.broadcast_to(values, (3, 1, 6))
    expected = jnp.array([0.0, 0.2, 0.49, 0.5, 0.3, 0.0])
    np.testing.assert_allclose(color.solarize(planes)[0, 0], expected, atol=1e-6)


def test_blur_keeps_constant_images_and_smooths_others():
    constant = jnp.full((3, 14, 18), 0.7)
    np.testing.assert_allclose(color.gaussian_blur(constant, 1.5), 0.7, atol=1e-6)
    assert color.gaussian_blur(_image(), 1.5).std() < 0.5 * _image().std()


@pytest.mark.parametrize("size", [1, 2, 7])
def test_blur_of_an_image_smaller_than_its_kernel_is_an_average(size):
    blurred = color.gaussian_blur(jnp.full((3, size, size), 0.7), 2.0)
    np.testing.assert_allclose(blurred, 0.7, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(2, 1), (7, 12), (13, 40)])
def test_blur_by_products_is_the_same_at_the_borders_too(shape, sigma):
    image = jax.random.uniform(jax.random.key(0), (3, *shape))
    expected = color.gaussian_blur(image, sigma)
    found = color.gaussian_blur_by_products(image, sigma)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_large_crops_are_blurred_by_products_unless_they_are_drawn_one_by_one():
    blurs = spec(flip_prob=0.0, jitter_prob=0.0, grayscale_prob=0.0, blur_prob=1.0)

    def products(side, branch):
        draw = functools.partial(color.augment_crop, spec=blurs, branch=branch)
        shape = jax.ShapeDtypeStruct((3, side, side), jnp.float32)
        return str(jax.make_jaxpr(draw)(jax.random.key(0), shape)).count("dot_general")

    assert [products(64, False), products(63, False), products(64, True)] == [2, 0, 0]


def test_normalize_uses_each_channels_own_mean_and_std():
    mean, std = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    normal = color.normalize(jnp.full((3, 2, 2), 0.5), mean, std)
    np.testing.assert_allclose(normal[:, 0, 0], [0.4, 0.15, 0.05], atol=1e-6)
