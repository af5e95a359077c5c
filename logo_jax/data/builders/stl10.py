"""STL-10 in stock TFDS's on-disk layout, written without TensorFlow.

Name, version, features, order and checksum are those of stock TFDS's builder:
tensorflow/datasets@tensorflow_datasets/datasets/stl10.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.units import Size

from logo_jax.data.builders.archives import open_member, read_members
from logo_jax.data.builders.downloads import Published

_PREFIX = "stl10_binary/"
_NAMES = f"{_PREFIX}class_names.txt"
_IMAGES = {
    "train": f"{_PREFIX}train_X.bin",
    "test": f"{_PREFIX}test_X.bin",
    "unlabelled": f"{_PREFIX}unlabeled_X.bin",
}
_LABELS = {"train": f"{_PREFIX}train_y.bin", "test": f"{_PREFIX}test_y.bin"}
_IMAGE_BYTES = 3 * 96 * 96
_CHUNK = 256  # images read at a time: 7 MB of the 2.7 GB of unlabeled images
_CITATION = r"""@inproceedings{coates2011stl10,
  title={An Analysis of Single Layer Networks in Unsupervised Feature Learning},
  author={Coates, Adam and Ng, Andrew and Lee, Honglak},
  booktitle={AISTATS},
  year={2011},
  url={https://cs.stanford.edu/~acoates/papers/coatesleeng_aistats_2011.pdf},
}"""


class Stl10(Published, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes STL-10; the images of its unlabeled split have the label -1."""

    name = "stl10"
    VERSION = tfds.core.Version("1.0.0")
    url_infos: Any = {
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz": UrlInfo(
            size=Size(2_640_397_119),
            checksum="f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
            filename="stl10_binary.tar.gz",
        )
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(96, 96, 3)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Photographs of 96x96 pixels from ImageNet: 5,000 training and 8,000 "
                "test images of ten classes, and 100,000 unlabeled images of these "
                "and other classes."
            ),
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="http://ai.stanford.edu/~acoates/stl10/",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        (url,) = self.url_infos
        archive = self.fetch(dl_manager, url)
        contents = read_members(archive, [_NAMES, *_LABELS.values()])
        features: Any = self.info.features
        features["label"].names = contents[_NAMES].decode().split()
        return {
            split: self._generate_examples(
                archive, member, contents.get(_LABELS.get(split, ""))
            )
            for split, member in _IMAGES.items()
        }

    def _generate_examples(
        self, archive: Path, member: str, labels: bytes | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, pixels in enumerate(read_images(archive, member)):
            # TFDS encodes PIL images with Pillow but arrays with TensorFlow.
            image = Image.fromarray(np.ascontiguousarray(pixels))
            # The file numbers the classes from 1.
            yield i, {"image": image, "label": labels[i] - 1 if labels else -1}


def read_images(archive: Path, member: str) -> Iterator[UInt8[np.ndarray, "96 96 3"]]:
    """Yields the pixels of each image in a binary file of STL-10, read in chunks.

    Each image is stored as its red, its green and its blue plane, each 96 columns of
    96 bytes: http://ai.stanford.edu/~acoates/stl10/.

    Raises:
        ValueError: if the file is missing, or its size is not a multiple of an image's.
    """
    with open_member(archive, member) as file:
        while piece := file.read(_CHUNK * _IMAGE_BYTES):
            if len(piece) % _IMAGE_BYTES:
                raise ValueError(
                    f"{archive}: the size of {member} must be a multiple of "
                    f"{_IMAGE_BYTES} bytes; download it again"
                )
            planes = np.frombuffer(piece, np.uint8).reshape(-1, 3, 96, 96)
            yield from planes.transpose(0, 3, 2, 1)
