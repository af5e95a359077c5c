"""CIFAR-10 as stock TFDS lays it out on disk, written without TensorFlow.

Name, version, features, order and checksum are those of stock TFDS's builder, so what
is written here and what stock TFDS writes with `file_format="array_record"` are read
alike, slices such as `train[:10%]` included.
"""

import queue
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8
from PIL import Image
from tensorflow_datasets.core.download.checksums import UrlInfo, compute_url_info
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from logo_jax.data import npz, tfds_source
from logo_jax.data.images import SPLITS

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_ROW_BYTES = 1 + 3 * 32 * 32
_Stock = tfds.image_classification.Cifar10
_Row = tuple[UInt8[np.ndarray, "32 32 3"], int]
_Arrays = tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"]]


class Cifar10(_Stock, skip_registration=True):
    """Writes CIFAR-10 from its authors' archive of binary files.

    Source: tensorflow/datasets@tensorflow_datasets/image_classification/cifar.py, whose
    own reading and extraction need TensorFlow.
    """

    name = "cifar10"
    url_infos: Any = _Stock.url_infos  # a subclass does not inherit the checksum

    @classmethod
    def archive(cls) -> tuple[str, UrlInfo]:
        """URL of the authors' archive, and its file name, size and checksum."""
        ((url, info),) = cls.url_infos.items()
        return url, info

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        archive = Path(dl_manager.download(self.archive()[0]))
        layout = self._cifar_info
        (names,) = read_members(archive, [layout.prefix + layout.label_files[0]])
        self._name_classes(names.decode().split())
        files = {"train": layout.train_files, "test": layout.test_files}
        return {
            split: _examples(
                split,
                read_rows(archive, [layout.prefix + name for name in files[split]]),
            )
            for split in SPLITS
        }

    def _name_classes(self, names: list[str]) -> None:
        features: Any = self.info.features
        features["label"].names = names


class Cifar10FromArrays(Cifar10, skip_registration=True):
    """Writes the same data set from arrays.

    Args:
        arrays: the images and labels of each split, as `read_arrays` gives them.
        origin: folder of the arrays' files; recorded in dataset_info.json, under
            `dataSourceAccesses`.
        **kwargs: of every TFDS builder.
    """

    name = "cifar10"

    def __init__(self, *, arrays: Mapping[str, _Arrays], origin: Path, **kwargs: Any):
        super().__init__(**kwargs)
        self._arrays = arrays
        self._origin = origin

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        del dl_manager
        self.info.add_file_data_source_access(str(self._origin))
        self._name_classes(list(CLASS_NAMES))
        return {
            split: _examples(split, zip(*rows, strict=True))
            for split, rows in self._arrays.items()
        }


def location(folder: Path) -> Path:
    """Where under a data_dir the data set is, once it is prepared."""
    return folder / Cifar10.name / str(Cifar10.VERSION)


def from_archive(
    folder: Path, builder_class: type[Cifar10] = Cifar10, *, timeout_s: float = 5.0
) -> Path:
    """Prepares the data set from the archive placed by hand, or else downloaded.

    Args:
        folder: data_dir to write under; an archive placed by hand is looked for in its
            `downloads/manual`.
        builder_class: what knows the archive's address and checksum.
        timeout_s: seconds to wait for the archive's host to answer.

    Returns:
        The folder written.

    Raises:
        FileNotFoundError: if there is no archive and its host does not answer.
        ValueError: if the archive is not the one its authors published.
    """
    require_archive(folder, builder_class, timeout_s=timeout_s)
    return _write(builder_class, folder)


def from_arrays(folder: Path, arrays_dir: Path) -> Path:
    """Prepares the data set from `train.npz` and `test.npz` in arrays_dir.

    Returns:
        The folder written.

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: if their arrays are not as `read_arrays` says.
    """
    arrays = {split: read_arrays(arrays_dir, split) for split in SPLITS}
    origin = arrays_dir.expanduser().absolute()
    return _write(Cifar10FromArrays, folder, arrays=arrays, origin=origin)


def read_arrays(arrays_dir: Path, split: str) -> _Arrays:
    """Images and labels of one split: uint8 [n, 32, 32, 3], integers in [0, 10).

    Raises:
        FileNotFoundError: if `<split>.npz` is missing.
        ValueError: for another shape or type, and for missing or other labels.
    """
    rows = npz.load(arrays_dir, split)
    file = arrays_dir / f"{split}.npz"
    if rows.images.shape[1:] != (32, 32, 3):
        raise ValueError(
            f"{file}: images {list(rows.images.shape)} must be [n, 32, 32, 3]"
        )
    if rows.labels is None:
        raise ValueError(f"{file} has no labels; add 'labels', integers in [0, 10)")
    if rows.labels.max() >= len(CLASS_NAMES):
        raise ValueError(f"{file}: label {rows.labels.max()} must be in [0, 10)")
    return rows.images, rows.labels


def require_archive(
    folder: Path, builder_class: type[Cifar10] = Cifar10, *, timeout_s: float
) -> None:
    """Raises unless the right archive is in folder or its host answers.

    TFDS itself retries an unreachable host for some 200 seconds.

    Raises:
        FileNotFoundError: if there is no archive and the host does not answer.
        ValueError: if the archive placed by hand has another size or checksum.
    """
    url, expected = builder_class.archive()
    file = folder / "downloads" / "manual" / str(expected.filename)
    wanted = f"{int(expected.size)} bytes, sha256 {expected.checksum}"
    if file.is_file():
        found = compute_url_info(file)
        if found != expected:
            raise ValueError(
                f"{file} has {int(found.size)} bytes, sha256 {found.checksum}; "
                f"must have {wanted}: replace it with {url}"
            )
    elif not answers(url, timeout_s=timeout_s):
        raise FileNotFoundError(
            f"{file} is missing and {url} does not answer: "
            f"put the file there ({wanted}) or give arrays with --from_arrays=DIR"
        )


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether url can be had, as far as is known after timeout_s seconds.

    The question is asked by the client that TFDS downloads with, so that proxies and
    certificates count alike.
    """
    answer = queue.SimpleQueue()

    def ask() -> None:
        try:
            response = requests.head(url, timeout=timeout_s, allow_redirects=True)
            answer.put(response.ok)
        except requests.RequestException:
            answer.put(False)

    # Name resolution heeds no timeout, so the thread may have to be left behind.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=timeout_s)
    except queue.Empty:
        return False


def read_members(archive: Path, members: Sequence[str]) -> Iterator[bytes]:
    """The contents of members of a tar archive, in the order asked for.

    Raises:
        ValueError: if the archive has no such file.
    """
    with tarfile.open(archive) as tar:
        for member in members:
            file = tar.extractfile(member) if member in tar.getnames() else None
            if file is None:
                raise ValueError(f"{archive} has no file {member}; get it again")
            yield file.read()


def read_rows(archive: Path, members: Sequence[str]) -> Iterator[_Row]:
    """Pixels and label of each image in CIFAR-10's binary files.

    A row is one byte of label, then the red, the green and the blue plane, each 32 rows
    of 32 bytes: https://www.cs.toronto.edu/~kriz/cifar.html.

    Raises:
        ValueError: if a file is missing or holds no whole number of rows.
    """
    for member, content in zip(members, read_members(archive, members), strict=True):
        if len(content) % _ROW_BYTES:
            raise ValueError(
                f"{archive}: {member} has {len(content)} bytes, must be a multiple of "
                f"{_ROW_BYTES}; get it again"
            )
        for row in np.frombuffer(content, np.uint8).reshape(-1, _ROW_BYTES):
            yield row[1:].reshape(3, 32, 32).transpose(1, 2, 0), int(row[0])


def _examples(split: str, rows: Iterable[_Row]) -> Iterator[tuple[int, dict[str, Any]]]:
    for i, (pixels, label) in enumerate(rows):
        # TFDS encodes a PIL image with Pillow, an array with TensorFlow.
        image = Image.fromarray(pixels)
        yield i, {"id": f"{split}_{i:05d}", "image": image, "label": int(label)}


def _write(builder_class: type[Cifar10], folder: Path, **kwargs: Any) -> Path:
    file_format = tfds_source.READABLE_FORMAT
    builder = builder_class(data_dir=folder, file_format=file_format, **kwargs)
    try:
        builder.download_and_prepare()
    except (NonMatchingChecksumError, tfds.download.DownloadError) as error:
        raise ValueError(
            f"{builder.archive()[0]} was not downloaded well: {error}; try again"
        ) from error
    return Path(builder.data_path)
