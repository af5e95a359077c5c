"""Augmentations for tests: the configs' defaults with changes."""

from logo_jax.augment import AugmentSpec
from logo_jax.configs import base


def spec(**changes):
    return AugmentSpec(**base.get_config("simsiam").augment.to_dict() | changes)
