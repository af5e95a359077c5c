"""Backbone and projection head as one network."""

import flax.linen as nn
import jax


class Encoder(nn.Module):
    """Images to embeddings; the backbone's features are a method of their own.

    Attributes:
        backbone: images to pooled features.
        head: features to embeddings.
    """

    backbone: nn.Module
    head: nn.Module

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Embeddings [..., d] of images [..., h, w, c]; sows the features [..., f]."""
        features = self.backbone(images, train=train)
        self.sow("intermediates", "features", features)
        return self.head(features, train=train)

    def project(self, features: jax.Array) -> jax.Array:
        """Embeddings [..., d] of features [..., f] in evaluation mode."""
        return self.head(features, train=False)

    def features(self, images: jax.Array) -> jax.Array:
        """The backbone's features [..., f] in evaluation mode."""
        return self.backbone(images, train=False)
