"""Losses as pure functions of arrays: import one and use it in any JAX program.

Conventions: embeddings have the batch on the last axis but one and the dimension on
the last; functions return one value per example and leave the mean to the caller,
except the bounds on mutual information, which are means by definition.
"""

from logo_jax.losses.contrastive import info_nce
from logo_jax.losses.repulsion import (
    cosine_affinity,
    different_image,
    donsker_varadhan,
    jensen_shannon,
    mine_difference,
    same_image,
)
from logo_jax.losses.similarity import l2_normalize, negative_cosine
from logo_jax.losses.swav import sinkhorn, swapped_prediction

__all__ = [
    "cosine_affinity",
    "different_image",
    "donsker_varadhan",
    "info_nce",
    "jensen_shannon",
    "l2_normalize",
    "mine_difference",
    "negative_cosine",
    "same_image",
    "sinkhorn",
    "swapped_prediction",
]
