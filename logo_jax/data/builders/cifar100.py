"""CIFAR-100 in stock TFDS's layout, from its authors' archive."""

from typing import Any

import tensorflow_datasets as tfds

from logo_jax.data.builders.cifar import split_generators
from logo_jax.data.builders.downloads import Published

_Stock = tfds.image_classification.Cifar100


class Cifar100(Published, _Stock, skip_registration=True):
    """Writes CIFAR-100, each image with its fine and its coarse label."""

    name = "cifar100"
    url_infos: Any = _Stock.url_infos  # a subclass does not inherit the checksum

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        (url,) = self.url_infos
        return split_generators(self, self.fetch(dl_manager, url))
