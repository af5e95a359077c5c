"""Self-supervised methods: frozen descriptions with `init` and `update`."""

from logo_jax.methods.logo import LoGo
from logo_jax.methods.moco import MoCo
from logo_jax.methods.simsiam import SimSiam

__all__ = ["LoGo", "MoCo", "SimSiam"]
