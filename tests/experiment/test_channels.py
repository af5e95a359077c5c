"""Configs for images that are not red, green and blue of 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax import configs
from logo_jax.augment import prepare_eval
from logo_jax.augment._cpu import one_by_one
from logo_jax.augment.color import jitter, normalize
from logo_jax.augment.multi_crop import all_at_once
from logo_jax.data.load import load_arrays
from logo_jax.experiment import parse
from logo_jax.experiment.measured import completed, fields_of, with_measured
from logo_jax.interop.channels import for_channels
from logo_jax.networks.layers import conv
from logo_jax.networks.vit import cut_patches
from logo_jax.parallel.keys import make_key
from tests.augment.specs import spec

RNG = np.random.default_rng(0)


def load(**fields):
    given = {name.replace("__", "."): value for name, value in fields.items()}
    return configs.load("cifar10_byol", given)


def measured(images, **fields):
    config = parse(load(data__source="arrays", **fields))
    _, data = load_arrays(images, decoding=config.data.location.decoding)
    return with_measured(config, data)


def test_color_operations_are_left_out_unless_they_are_asked_for():
    augment = load(data__channels=5).augment
    assert augment.grayscale_prob == 0
    assert augment.jitter == (0.4, 0.4, 0.0, 0.0)
    assert augment.mean == augment.std == ()
    assert load().augment.grayscale_prob == 0.2
    for field, value in (("grayscale_prob", 0.2), ("jitter", (0.4,) * 4)):
        with pytest.raises(ValueError, match=f"{field}.*channels=3, not 5; set "):
            parse(load(data__channels=5, **{f"augment__{field}": value}))
    with pytest.raises(ValueError, match="mean=.* must have 5 values"):
        parse(load(data__channels=5, augment__mean=(0.5, 0.5, 0.5)))


def test_the_images_of_a_config_as_it_was_are_of_8_bits():
    assert parse(load()).data.location.decoding.dtype == ""
    config, _, notes = measured(np.zeros((2, 4, 4, 3), np.uint8))
    assert notes == []
    assert config.augment.policy.value_range == (0, 255)


def test_what_is_measured_is_stored_and_is_that_of_the_images():
    images = RNG.integers(100, 4000, (9, 4, 4, 5)).astype(np.uint16)
    config, _, (note,) = measured(images, data__channels=5)
    low, high = images.min(), images.max()
    assert (config.data.dtype, config.data.value_range) == ("uint16", (low, high))
    assert "5 channels of uint16" in note
    assert "measured over all 9 images" in note
    prepared = prepare_eval(jnp.asarray(images), config.augment.policy)
    np.testing.assert_allclose(prepared.mean((0, 1, 2)), np.zeros(5), atol=1e-4)
    np.testing.assert_allclose(prepared.std((0, 1, 2)), np.ones(5), atol=1e-4)
    plain = load(data__channels=5).to_dict()
    stored = completed(plain, fields_of(config))
    assert parse(stored).augment == config.augment
    assert completed(stored, {"data.dtype": "uint8"})["data"]["dtype"] == "uint16"


def test_a_stated_range_clips_and_a_constant_channel_is_not_divided_by_0():
    images = np.zeros((3, 2, 2, 2), np.float32)
    images[..., 0] = np.array([-500, 0, 1000]).reshape(3, 1, 1)
    config, *_ = measured(images, data__channels=2, data__value_range=(0, 100))
    policy = config.augment.policy
    assert policy.std[1] == 1
    np.testing.assert_allclose(policy.mean, [1 / 3, 0], rtol=1e-5)
    prepared = prepare_eval(jnp.asarray(images), policy)[:, 0, 0, 0]
    np.testing.assert_allclose(prepared[0], prepared[1])


def test_both_ways_to_cut_crops_agree_for_any_type_and_number_of_channels():
    images = RNG.normal(50, 900, (2, 12, 14, 5)).astype(np.float32)
    augment = spec(mean=(0.5,) * 5, std=(0.2,) * 5, value_range=(-100.0, 300.0))
    augment = augment.without_changes()
    boxes = jnp.array([[[0, 1, 9, 7.5], [2, 0, 10, 14]]] * 2, jnp.float32)
    keys = jax.random.split(make_key(0), (2, 2))
    arguments = (jnp.asarray(images), boxes, keys)
    cut = [
        jax.jit(lambda *x, f=f: f(*x, size=6, augment=augment))(*arguments)
        for f in (one_by_one, all_at_once)
    ]
    np.testing.assert_allclose(*cut, atol=2e-5)
    assert cut[0].shape == (2, 2, 6, 6, 5)


def test_jitter_of_other_channels_does_not_mix_them():
    planes = jnp.asarray(RNG.uniform(size=(4, 6, 6)), jnp.float32)
    strengths = (0.4, 0.4, 0.0, 0.0)
    changed = jitter(make_key(3), planes, strengths)
    assert jnp.abs(changed - planes).max() > 0.01
    other = jitter(make_key(3), planes.at[2].set(0.3), strengths)
    for channel in (0, 1, 3):
        np.testing.assert_array_equal(other[channel], changed[channel])
    with pytest.raises(ValueError, match="must have 4 values, one per channel"):
        normalize(planes, (), ())


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_weights_of_three_channels_give_equal_channels_the_same_response(channels):
    gray = jnp.asarray(RNG.normal(size=(1, 8, 8, 1)), jnp.float32)
    three, several = jnp.repeat(gray, 3, -1), jnp.repeat(gray, channels, -1)
    layer = conv(6, 3, 1, jnp.float32, "conv1")
    kernel = np.asarray(layer.init(make_key(0), three)["params"]["kernel"])
    new = for_channels((), kernel, (3, 3, channels, 6))
    np.testing.assert_allclose(
        layer.apply({"params": {"kernel": jnp.asarray(new)}}, several),
        layer.apply({"params": {"kernel": jnp.asarray(kernel)}}, three),
        atol=1e-5,
    )
    patches = RNG.normal(size=(4 * 4 * 3, 6)).astype(np.float32)
    path = (jax.tree_util.DictKey("patches"), jax.tree_util.DictKey("kernel"))
    new = for_channels(path, patches, (4 * 4 * channels, 6))
    response = cut_patches(several, 4) @ new
    np.testing.assert_allclose(response, cut_patches(three, 4) @ patches, atol=1e-4)
