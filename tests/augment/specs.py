"""Augmentations for tests: the configs' defaults with changes."""

import dataclasses

from logo_jax.configs import base
from logo_jax.experiment import parse


def spec(**changes):
    policy = parse(base.get_config("simsiam")).augment.policy
    return dataclasses.replace(policy, **changes)
