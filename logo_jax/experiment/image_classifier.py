"""A trained classifier as a function from images to probabilities of classes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from logo_jax.data.sources.base import ImageSource
from logo_jax.experiment import classifier_folder
from logo_jax.experiment.image_encoder import (
    ImageEncoder,
    Images,
    image_source,
    of_classifier,
    require_sizes,
)
from logo_jax.methods.linear import logits
from logo_jax.storage.paths import as_path


@struct.dataclass
class ImageClassifier:
    """A fine-tuned classifier as a function from images to probabilities.

    `classifier(images)` reads, resizes, crops and classifies images of any kind on all
    devices. `classifier.apply` is pure, for programs in JAX. A classifier is a pytree
    whose leaves are its variables.

    Attributes:
        encoder: the encoder of the images.
        linear: classifier of the features: "kernel" [f, c] and "bias" [c].
        class_names: names of the classes, in the order of the probabilities.
    """

    encoder: ImageEncoder
    linear: Any
    class_names: tuple[str, ...] = struct.field(pytree_node=False)

    def apply(self, images: Any) -> jax.Array:
        """Computes the probabilities of images that are already resized and cropped.

        Args:
            images: as for `ImageEncoder.apply`.

        Returns:
            Probabilities [b, c], float32.
        """
        return jax.nn.softmax(logits(self.linear, self.encoder.apply(images)))

    def __call__(self, images: Images, *, batch_size: int = 256) -> np.ndarray:
        """Computes the probabilities of the classes of images.

        Args:
            images: as for `ImageEncoder.__call__`.
            batch_size: number of images per batch, over all devices.

        Returns:
            Probabilities [n, c], float32; `class_names` has the names of the classes.

        Raises:
            FileNotFoundError: if a folder or file does not exist.
            ValueError: as for `ImageEncoder.__call__`.
        """
        source = image_source(images, self.encoder.decoding)
        return self.probabilities(source, batch_size=batch_size)

    def probabilities(
        self,
        images: ImageSource,
        *,
        batch_size: int = 256,
        damaged: dict[int, str] | None = None,
    ) -> np.ndarray:
        """Computes the probabilities of the classes of all images of a source.

        Args:
            images: the images.
            batch_size: images per batch over all devices; fewer for a small source.
            damaged: as for `ImageEncoder.features`.

        Raises:
            ValueError: as for `ImageEncoder.__call__`.
        """
        found = self.encoder.features(images, batch_size=batch_size, damaged=damaged)
        scores = jnp.asarray(logits(self.linear, found.features))
        return np.asarray(jax.nn.softmax(scores))


def load_image_classifier(
    folder: str | Path, *, resize: int | None = None, crop: int | None = None
) -> ImageClassifier:
    """Loads the classifier that `evaluate --protocol=finetune` has written.

    Args:
        folder: folder of the classifier.
        resize: short side of the resized image, in pixels, and 0 for images that are
            used as they are; if None, that of the evaluation.
        crop: side of the center crop; if None, that of the evaluation.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is damaged, or the sizes do not fit.
    """
    path = as_path(folder)
    found = classifier_folder.read(path)
    given = {"resize": resize, "crop": crop}
    sizes = {name: value for name, value in given.items() if value is not None}
    encoder = of_classifier(found, path, sizes)
    require_sizes(encoder)
    return ImageClassifier(encoder, found.linear, found.class_names)
