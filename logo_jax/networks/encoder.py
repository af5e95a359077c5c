"""Backbone and projection head as one network."""

import flax.linen as nn
import jax


class Encoder(nn.Module):
    """Backbone and projection head: maps images to embeddings.

    Attributes:
        backbone: network from images to pooled features.
        head: network from features to embeddings.
        parts: number of equal parts of a device's images that training encodes one
            after another (`methods.multi_crop.encode`).
    """

    backbone: nn.Module
    head: nn.Module
    parts: int = 1

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns embeddings [..., d] of images [..., h, w, c].

        The backbone's features [..., f] are sown as the intermediate "features".
        """
        features = self.backbone(images, train=train)
        self.sow("intermediates", "features", features)
        return self.head(features, train=train)

    def project(self, features: jax.Array) -> jax.Array:
        """Returns embeddings [..., d] of features [..., f] in evaluation mode."""
        return self.head(features, train=False)

    def features(self, images: jax.Array) -> jax.Array:
        """Returns the backbone's features [..., f] in evaluation mode."""
        return self.backbone(images, train=False)
