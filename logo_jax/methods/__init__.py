"""Self-supervised methods: frozen dataclasses with `init` and `update`."""

from logo_jax.methods.affinity import CosineAffinity, LearnedAffinity
from logo_jax.methods.byol import BYOL
from logo_jax.methods.fine_tune import FineTune
from logo_jax.methods.linear import LinearProbe, OnlineLinear
from logo_jax.methods.logo import LoGo
from logo_jax.methods.moco import MoCo
from logo_jax.methods.simsiam import SimSiam
from logo_jax.methods.swav import SwAV

__all__ = [
    "BYOL",
    "CosineAffinity",
    "FineTune",
    "LearnedAffinity",
    "LinearProbe",
    "LoGo",
    "MoCo",
    "OnlineLinear",
    "SimSiam",
    "SwAV",
]
