"""An index of images, which knows the encoder that its features were computed by."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from logo_jax import zoo
from logo_jax.data.sources.base import ImageSource
from logo_jax.data.sources.folder import FolderSource
from logo_jax.data.sources.huggingface import HuggingFaceSource
from logo_jax.data.sources.names import as_utf8
from logo_jax.evaluation import feature_index
from logo_jax.evaluation.feature_index import FeatureIndex
from logo_jax.evaluation.features import Features
from logo_jax.experiment.image_encoder import (
    ImageEncoder,
    Images,
    image_source,
    load_image_encoder,
)
from logo_jax.experiment.pretrained import describe_weights
from logo_jax.storage.paths import as_path

VERSION = 1


class Match(NamedTuple):
    """An image of an index that is similar to a query.

    Attributes:
        cosine: cosine similarity of the features.
        file: name of the image.
        class_name: class of the image; None if unknown.
    """

    cosine: float
    file: str
    class_name: str | None


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """An index with its encoder, to be asked for images that are similar to others.

    Attributes:
        features: the features of the index.
        encoder: the encoder that they were computed by.
    """

    features: FeatureIndex
    encoder: ImageEncoder

    def nearest(self, images: Images, k: int = 10) -> list[list[Match]]:
        """Returns the k most similar images of the index for each given image.

        The search is exact. It reads the file once, a part at a time.

        Args:
            images: as for `ImageEncoder.__call__`.
            k: number of images; all are returned if there are fewer.

        Raises:
            FileNotFoundError: if a folder or file does not exist.
            ValueError: if images cannot be decoded.
        """
        source = image_source(images, self.encoder.decoding)
        found = self.encoder.features(source).features
        cosines, rows = self.features.nearest(found, k)
        entries = iter(self.features.entries(rows.ravel()))
        return [
            [Match(float(cosine), *next(entries)) for cosine in line]
            for line in cosines
        ]


def write(
    path: Path,
    encoder: ImageEncoder,
    source: Path,
    choices: Mapping[str, Any],
    images: ImageSource,
    parts: Iterable[feature_index.Entries],
) -> int:
    """Writes an index and returns the number of its images.

    Args:
        path: the file.
        encoder: the encoder of the features.
        source: the run or the file of weights that `encoder` was loaded from.
        choices: the arguments that it was loaded with.
        images: the images.
        parts: their names, classes and features.

    Raises:
        ValueError: if there are no images, or features are not finite.
    """
    sizes = {"resize": encoder.resize, "crop": encoder.crop}
    about = {
        "version": VERSION,
        "images": as_utf8(images.origin),
        "source": str(source.absolute()),
        "choices": {**choices, **sizes, **_step(encoder)},
        "encoder": _identity(encoder),
    }
    return feature_index.write(path, about, parts)


def read(path: Path, source: Path | None = None) -> ImageIndex:
    """Opens an index and loads its encoder.

    Args:
        path: the file.
        source: the run or the file of weights, if it has moved.

    Raises:
        FileNotFoundError: if the index or the source of its encoder does not exist.
        ValueError: if the index is damaged, or the encoder is not that of the index.
    """
    found = feature_index.read(path)
    about = found.about
    if about.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {about.get('version')}, but must have version "
            f"{VERSION}; write it again by logo_jax.embed DIR --index"
        )
    place = source or as_path(about["source"])
    if not zoo.located(place).exists():
        raise FileNotFoundError(
            f"{place}, which has the encoder of {path}, does not exist; give its new "
            "place by --workdir or --weights"
        )
    encoder = load_image_encoder(place, **about["choices"])
    for name, now in _identity(encoder).items():
        before = about["encoder"][name]
        if now != before:
            raise ValueError(
                f"{place} is not the encoder of {path}: its {name} are {now}, not "
                f"{before}; give the run or the file that the index was written with"
            )
    return ImageIndex(found, encoder)


def entries(
    images: FolderSource | HuggingFaceSource,
    parts: Iterable[Features],
    damaged: Mapping[int, str],
) -> Iterator[feature_index.Entries]:
    """Adds the names and classes of images to their features.

    Args:
        images: the images; `files` are their names and `class_names` their classes.
        parts: features of all images but the damaged ones, in order.
        damaged: the numbers of the damaged images before the last image of a part.
    """
    files, classes = images.files, images.class_names
    numbers = (i for i in range(len(images)) if i not in damaged)
    for part in parts:
        chosen = [next(numbers) for _ in part.labels]
        yield feature_index.Entries(
            [as_utf8(files[i]) for i in chosen],
            [as_utf8(classes[i]) if i >= 0 and classes else None for i in part.labels],
            part.features,
        )


def _step(encoder: ImageEncoder) -> dict[str, int]:
    """The step of a run's checkpoint, since the run may have newer ones later."""
    return {} if encoder.step is None else {"step": encoder.step}


def _identity(encoder: ImageEncoder) -> dict[str, str]:
    """What distinguishes an encoder from others."""
    augment = encoder.augment
    return {
        "weights": describe_weights(type(encoder.module).__name__, encoder.variables),
        "images": f"mean {augment.mean}, std {augment.std}, values "
        f"{augment.value_range}, {encoder.decoding}",
    }
