"""ImageNet-100: a hundred classes of ImageNet-1k, written without TensorFlow.

The default classes, in `imagenet100_wnids.txt` next to this module, are those of
Contrastive Multiview Coding (https://arxiv.org/abs/1906.05849).
"""

import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from logo_jax.data.builders import archives

DEFAULT_CLASSES = Path(__file__).with_name("imagenet100_wnids.txt")
_Example = tuple[str, dict[str, Any]]
# One WordNet id per validation image, in the order of the image numbers.
_VALIDATION_LABELS = "datasets/imagenet2012/validation_labels.txt"
_CITATION = r"""@article{ILSVRC15,
  title={{ImageNet Large Scale Visual Recognition Challenge}},
  author={Olga Russakovsky and Jia Deng and Hao Su and Jonathan Krause and Sanjeev
          Satheesh and Sean Ma and Zhiheng Huang and Andrej Karpathy and Aditya Khosla
          and Michael Bernstein and Alexander C. Berg and Li Fei-Fei},
  journal={International Journal of Computer Vision},
  year={2015},
}
@inproceedings{tian2020contrastive,
  title={Contrastive Multiview Coding},
  author={Tian, Yonglong and Krishnan, Dilip and Isola, Phillip},
  booktitle={European Conference on Computer Vision},
  year={2020},
}"""


class ImageNet100(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes chosen classes of ImageNet-1k from its two manually placed archives.

    Image files are stored unchanged, including the few that are CMYK or PNG.

    Args:
        classes: WordNet id of each class; labels are indices into this sequence.
        **kwargs: arguments of `tfds.core.GeneratorBasedBuilder`.
    """

    name = "imagenet100"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, classes: Sequence[str], **kwargs: Any):
        self._classes = tuple(classes)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=self._classes),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{len(self._classes)} classes of ImageNet-1k (ILSVRC 2012).",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://image-net.org/",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        manual = Path(dl_manager.download_dir) / "manual"
        train, val = (
            manual / f"ILSVRC2012_img_{part}.tar" for part in ("train", "val")
        )
        return {
            "train": self._generate_examples(train, _train_examples),
            "validation": self._generate_examples(val, _validation_examples),
        }

    def _generate_examples(
        self,
        archive: Path,
        read: Callable[[Path, Sequence[str]], Iterator[_Example]],
    ) -> Iterator[_Example]:
        return read(archive, self._classes)


def read_classes(file: Path) -> tuple[str, ...]:
    """Reads WordNet ids from a text file with one id per line.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if the file is empty, lists a class twice, or lists an id that is
            not a class of ImageNet-1k.
    """
    classes = tuple(file.read_text().split())
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(
            f"{file} must list one or more classes, one per line, each once"
        )
    if unknown := set(classes).difference(validation_labels()):
        raise ValueError(
            f"{file}: {min(unknown)} is not a class of ImageNet-1k; use WordNet ids "
            "such as n01558993"
        )
    return classes


def _train_examples(archive: Path, classes: Sequence[str]) -> Iterator[_Example]:
    """Yields images of the training archive, which has a `<wnid>.tar` per class."""
    wanted = set(classes)
    with archives.opened(archive) as tar:
        for member in tar:
            wnid = member.name.removesuffix(".tar")
            if wnid in wanted and member.isfile():
                wanted.remove(wnid)
                with tarfile.open(fileobj=tar.extractfile(member)) as images:
                    yield from _examples(images, dict.fromkeys(images.getnames(), wnid))
    if wanted:
        raise ValueError(f"{archive} has no class {min(wanted)}; download it again")


def _validation_examples(archive: Path, classes: Sequence[str]) -> Iterator[_Example]:
    """Yields images of the validation archive (ILSVRC2012_val_00000001.JPEG, ...)."""
    labels = {
        f"ILSVRC2012_val_{i:08d}.JPEG": label
        for i, label in enumerate(validation_labels(), 1)
        if label in classes
    }
    with archives.opened(archive) as tar:
        yield from _examples(tar, labels)


def _examples(tar: tarfile.TarFile, labels: Mapping[str, str]) -> Iterator[_Example]:
    for member in tar:
        wanted = member.name in labels and member.isfile()
        file = tar.extractfile(member) if wanted else None
        if file is not None:
            label = labels[member.name]
            example = {"image": file.read(), "label": label, "file_name": member.name}
            yield member.name, example


def validation_labels() -> list[str]:
    """Returns the WordNet ids of ImageNet-1k's 50,000 validation images, in order."""
    return tfds.core.tfds_path(_VALIDATION_LABELS).read_text().split()
