"""A second policy, a change of one's own, and aspect ratios, from config to crops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from logo_jax import configs
from logo_jax.configs import base
from logo_jax.data.loader import Examples
from logo_jax.experiment import make_spec, parse
from logo_jax.experiment.augmentation import require_extra

HERE = "tests.experiment.test_augmentation"


def darken(key, image):
    return image * jax.random.uniform(key)


def smaller(key, image):
    del key
    return image[::2]


def halved(key, image):
    return darken(key, image).astype(jnp.bfloat16)


def brighter(key, image):
    """Leaves [0, 1] only if the image is bright."""
    del key
    return jnp.where(image > 0.9, image + 0.25, image)


def sometimes_negative(key, image):
    return image - jax.random.bernoulli(key, 0.5).astype(image.dtype)


def not_a_number(key, image):
    del key
    return image / image  # 0 / 0 in a black image


def pair(key, image):
    return image, key


def without_key(image):
    return image


def augment_with(**changes):
    config = base.get_config("simsiam").to_dict()
    config["augment"] |= changes
    return parse(config).augment


def test_a_second_policy_has_the_other_values_of_the_first():
    config = base.get_config("simsiam")
    assert parse(config).augment.second is None
    config.augment.flip_prob = 0.3
    config.augment.second.blur_prob = 0.1
    config.augment.second.jitter = (0.1, 0.2, 0.3, 0.4)
    augment = parse(config).augment
    assert augment.second is not None
    assert augment.second.blur_prob == 0.1
    assert augment.second.jitter == (0.1, 0.2, 0.3, 0.4)
    assert (augment.second.flip_prob, augment.second.std) == (0.3, augment.policy.std)
    assert augment.policy.blur_prob == 0.0


def test_fields_of_the_second_policy_are_set_by_name_although_they_are_none():
    changes = {"augment.second.blur_prob": "0.1", "augment.second.blur_sigma": "(1, 2)"}
    second = configs.load("cifar10_byol", changes).augment.second
    assert (second.blur_prob, second.blur_sigma) == (0.1, (1, 2))
    changes = {"augment.second.blur_prob": 0.1, "augment.second.blur_sigma": [1, 2]}
    assert configs.load("cifar10_byol", changes).augment.second == second


def test_byols_page_has_the_two_policies_of_byol():
    """Table 6 of https://arxiv.org/abs/2006.07733."""
    augment = parse(configs.load("imagenet100_byol")).augment
    for policy in (augment.policy, augment.second):
        assert policy is not None
        assert (policy.flip_prob, policy.jitter_prob) == (0.5, 0.8)
        assert policy.jitter == (0.4, 0.4, 0.2, 0.1)
        assert (policy.grayscale_prob, policy.blur_sigma) == (0.2, (0.1, 2.0))
        assert policy.vertical_flip_prob == policy.quarter_turns_prob == 0
    assert (augment.policy.blur_prob, augment.policy.solarize_prob) == (1.0, 0.0)
    assert (augment.second.blur_prob, augment.second.solarize_prob) == (0.1, 0.2)


def test_all_crops_have_the_configs_aspect_ratio():
    config = base.get_config("simsiam")
    config.crops.aspect_ratio = (0.5, 3.0)
    specs = parse(config).crops.specs
    assert [spec.aspect for spec in specs.values()] == [(0.5, 3.0)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("extra", [f"{HERE}:darken", darken])
def test_the_crops_of_a_run_have_the_second_policy_and_the_change_of_ones_own(extra):
    config = base.get_config("simsiam").to_dict()
    config["crops"] |= {"global_crops": (2, 3, (0.5, 1.0))}
    config["crops"] |= {"local_crops": (2, 2, (0.1, 0.5))}
    zeros = {name: 0.0 for name in config["augment"] if name.endswith("_prob")}
    config["augment"] |= zeros | {"mean": (0.0,) * 3, "std": (1.0,) * 3, "extra": extra}
    config["augment"]["second"]["solarize_prob"] = 1.0
    spec = make_spec(config, num_devices=1)
    spec.check(1)
    white = np.full((30, 4, 4, 3), 255, np.uint8)
    sizes, ids = np.full((30, 2), 4, np.int32), np.arange(30, dtype=np.int32)
    examples = Examples(*map(jnp.asarray, (white, sizes, ids)))
    batch = jax.jit(spec.make_batch)(spec.keys("crops"), examples, 0)
    np.testing.assert_array_equal(batch.global_crops[:, 1], 0.0)  # a solarized white
    for crops in (batch.global_crops[:, 0], *jnp.moveaxis(batch.local_crops, 1, 0)):
        levels = np.asarray(crops).mean((1, 2, 3))
        np.testing.assert_allclose(
            crops, np.broadcast_to(crops[:, :1, :1], crops.shape)
        )
        assert len(np.unique(levels)) == 30
        assert 0.25 < levels.mean() < 0.75  # darkened by a number in [0, 1]


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("nothing", "cannot be imported"),
        ("HERE", r"must be a function \(key, image\) -> image, not str"),
        ("smaller", r"float32 \[8, 8, 3\], not float32 \[4, 8, 3\]"),
        ("halved", r"float32 \[8, 8, 3\], not bfloat16 \[8, 8, 3\]"),
        ("brighter", r"values from 0 to 1, not 0 to 1.25; clip them"),
        ("sometimes_negative", r"values from 0 to 1, not -1 to 1; clip them"),
        ("not_a_number", r"values from 0 to 1, not nan to nan"),
        ("pair", "must return an image, not tuple"),
        ("without_key", "raises TypeError for a crop of 8 px: "),
    ],
)
def test_a_change_of_ones_own_that_is_not_usable_is_refused_in_one_line(name, fragment):
    augment = augment_with(extra=f"{HERE}:{name}")
    with pytest.raises(ValueError, match=fragment) as caught:
        require_extra(augment, [16, 8])
    message = str(caught.value)
    assert message.startswith(f"config.augment.extra='{HERE}:{name}' ")
    assert "\n" not in message


def test_a_usable_change_of_ones_own_and_none_pass():
    require_extra(augment_with(extra=f"{HERE}:darken"), [8])
    require_extra(augment_with(extra=""), [8])


def test_an_encoder_can_be_evaluated_without_the_change_of_ones_own():
    config = base.get_config("simsiam")
    config.augment.extra = "nowhere:change"
    spec = make_spec(config, num_devices=1)  # no error: crops only need it
    with pytest.raises(ValueError, match="'nowhere:change' cannot be imported"):
        spec.check(1)
