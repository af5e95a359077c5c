"""Losses as pure functions of arrays: import one and use it in any JAX program.

Conventions: the last axis of embeddings is the embedding dimension, and the
second-to-last axis is the batch. Functions return one loss per example, and the caller
averages them, except for the bounds on mutual information, which are means by
definition.
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
