"""FGVC-Aircraft, which stock TFDS does not have: 10,000 photos of 100 variants.

The banner of 20 pixels at the bottom of each image, which names its photographer, is
not removed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.units import Size

from logo_jax.data.builders.archives import read_members, stream_members
from logo_jax.data.builders.downloads import Published

_DATA = "fgvc-aircraft-2013b/data/"
_VARIANTS = f"{_DATA}variants.txt"
_LISTS = {
    "train": f"{_DATA}images_variant_train.txt",
    "validation": f"{_DATA}images_variant_val.txt",
    "test": f"{_DATA}images_variant_test.txt",
}
_CITATION = r"""@techreport{maji13fine-grained,
  title={Fine-Grained Visual Classification of Aircraft},
  author={Maji, S. and Kannala, J. and Rahtu, E. and Blaschko, M. and Vedaldi, A.},
  year={2013},
  archivePrefix={arXiv},
  eprint={1306.5151},
  primaryClass={cs-cv},
}"""


class FgvcAircraft(Published, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes FGVC-Aircraft with its official splits and unchanged JPEG files."""

    name = "fgvc_aircraft"
    VERSION = tfds.core.Version("1.0.0")
    # The authors publish only an MD5 checksum, and it is of an older archive. Several
    # public repositories list this SHA-256 for the file that they downloaded.
    url_infos: Any = {
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
        "fgvc-aircraft-2013b.tar.gz": UrlInfo(
            size=Size(2_753_340_328),
            checksum="e4e323d410e29f0370c81eabdcbb0e2b813acea1de22891b70b58ff41bfc9834",
            filename="fgvc-aircraft-2013b.tar.gz",
        )
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=100),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "10,000 photographs of 100 aircraft variants, "
                "a third each for training, validation and test."
            ),
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        (url,) = self.url_infos
        archive = self.fetch(dl_manager, url)
        lists = read_members(archive, [_VARIANTS, *_LISTS.values()])
        features: Any = self.info.features
        features["label"].names = lists[_VARIANTS].decode().splitlines()
        return {
            split: self._generate_examples(archive, _variants(lists[member].decode()))
            for split, member in _LISTS.items()
        }

    def _generate_examples(
        self, archive: Path, variants: Mapping[str, str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for member, content in stream_members(archive, variants):
            name = member.rpartition("/")[2]
            label = variants[member]
            yield name, {"image": content, "label": label, "file_name": name}


def _variants(text: str) -> dict[str, str]:
    """Parses lines such as `0034309 A340-600` to a map from image file to variant."""
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return {f"{_DATA}images/{image}.jpg": variant for image, variant in lines}
