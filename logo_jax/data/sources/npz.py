"""Images from NumPy archives: a folder with one of each split, or a single file."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from logo_jax.data.sources.base import (
    DEFAULT_DECODING,
    NO_LABEL,
    ArraySource,
    Decoding,
    require_split,
)
from logo_jax.data.sources.folder import HOLD_OUT, find_splits, not_used
from logo_jax.storage.paths import local_path

_CHANNELS = (1, 3, 4)


def load_npz_splits(
    path: str | Path, decoding: Decoding = DEFAULT_DECODING
) -> tuple[ArraySource, ArraySource | None, str]:
    """Returns the training images, the labeled images for queries, and a remark.

    Without images for queries, these are None. The remark states which files are not
    used, or why there are no queries. The splits have the names of
    `folder.SPLIT_NAMES`.

    Args:
        path: a folder with `train.npz` and, for queries, `val.npz` or `test.npz`; or a
            file, or a folder with a single one, of training images.
        decoding: the number of channels and the dtype.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `load_npz`, or if the labels of two splits differ in form.
    """
    path = local_path(path)
    if path.is_file():
        train = _load(path, decoding)
        return train, None, _without_test(train)
    files = sorted(_existing(path, "train").glob("*.npz"))
    splits = find_splits([file.stem for file in files])
    tests = splits["val"] + splits["test"]
    single = [file.stem for file in files if len(files) == 1 and not tests]
    first = next(iter(splits["train"] + single), "train")
    train = _load(path / f"{first}.npz", decoding)
    if train.labels is None or not tests:
        return train, None, _without_test(train)
    sources = [
        _load(path / f"{name}.npz", decoding, train.class_names) for name in tests
    ]
    test = next((x for x in sources if x.labels is not None), sources[0])
    if test.labels is None or test.labels.shape[1:] != train.labels.shape[1:]:
        found = "none" if test.labels is None else list(test.labels.shape)
        raise ValueError(
            f"labels of {test.origin} are {found}, those of {train.origin} are "
            f"{list(train.labels.shape)}; use the same form for both, or remove the "
            "labels of the training set"
        )
    if bool(test.class_names) != bool(train.class_names):
        raise ValueError(
            f"labels of {test.origin} and {train.origin} must both be strings or both "
            "be numbers"
        )
    used = (train.origin, test.origin)
    return train, test, not_used([str(x) for x in files if str(x) not in used])


def load_npz(path: str | Path, split: str) -> ArraySource:
    """Loads the images of `<path>/<split>.npz` and its labels, if any.

    Args:
        path: folder of `train.npz` and, for evaluation, `test.npz`. Each contains
            `images`, uint8 [n, h, w, 3], and optionally `labels`, integers [n] or, for
            multi-label data, [n, classes]. Other images are converted if their meaning
            is clear: floating-point numbers in [0, 1], gray [n, h, w], four channels
            of which the last is transparency, and channels first. Labels may also be
            strings [n], which are numbered in sorted order, and [n, 1].
        split: "train" or "test".

    Raises:
        FileNotFoundError: if the folder or the file is missing.
        ValueError: if the split is unknown, the file is damaged, or its arrays do not
            have this form. Pickled objects are never loaded.
    """
    require_split(split)
    return _load(_existing(path, split) / f"{split}.npz", DEFAULT_DECODING)


def _existing(path: str | Path, split: str) -> Path:
    folder = local_path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; give the folder that contains {split}.npz"
        )
    return folder


def _without_test(train: ArraySource) -> str:
    if train.labels is None:
        return f"{train.origin} has no labels"
    return f"there is no val.npz or test.npz next to {train.origin}; {HOLD_OUT}"


def _load(
    file: Path, decoding: Decoding, class_names: Sequence[str] = ()
) -> ArraySource:
    """Loads a file; string labels are numbered as in `class_names`, if these exist."""
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; write it with numpy.savez, images=... and labels=..."
        )
    arrays = _read(file)
    if "images" not in arrays:
        raise ValueError(
            f"{file} must have an array 'images', got {sorted(arrays) or 'none'}"
        )
    if decoding.dtype:
        images, done = _channels_last(arrays["images"], decoding.channels)
    else:
        images, done = _as_rgb(arrays["images"])
    labels = arrays.get("labels")
    if labels is not None:
        labels, class_names = _numbered(labels, class_names, file)
    if labels is not None and labels.ndim == 1 and NO_LABEL in labels:
        raise ValueError(
            f"{file}: label {NO_LABEL} is negative; number the classes from 0"
        )
    notes = [f"images of {file} were {', '.join(done)}"] if done else []
    if labels is not arrays.get("labels"):
        form = "strings" if class_names else "a column"
        notes.append(f"labels of {file} were {form}")
    return ArraySource(
        images,
        labels,
        origin=str(file),
        class_names=class_names,
        notes=notes,
        decoding=decoding,
    )


def _as_rgb(images: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Returns images as uint8 [n, h, w, 3], and what they were, if that is clear.

    Images of which it is not clear are returned as they are.
    """
    shape, done = images.shape, []
    if images.ndim == 4 and shape[1] in _CHANNELS and shape[-1] not in _CHANNELS:
        images = np.moveaxis(images, 1, -1)
        done.append("channels first")
    elif images.ndim == 3 and shape[-1] not in _CHANNELS:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in _CHANNELS:
        return images, done
    if np.issubdtype(images.dtype, np.floating) and _are_fractions(images):
        images = np.round(255 * images).astype(np.uint8)
        done.append("floating-point numbers in [0, 1]")
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
        done.append("gray")
    if images.shape[-1] == 4:
        images = images[..., :3]
        done.append("with transparency, which is dropped")
    return np.ascontiguousarray(images), done


def _channels_last(images: np.ndarray, channels: int) -> tuple[np.ndarray, list[str]]:
    """Returns images as [n, h, w, channels], and what they were, if that is clear.

    Images of which it is not clear are returned as they are.
    """
    if images.ndim == 4 and images.shape[-1] != channels == images.shape[1]:
        return np.ascontiguousarray(np.moveaxis(images, 1, -1)), ["channels first"]
    return images, []


def _are_fractions(images: np.ndarray) -> bool:
    return images.size > 0 and bool(images.min() >= 0 and images.max() <= 1)


def _numbered(
    labels: np.ndarray, class_names: Sequence[str], file: Path
) -> tuple[np.ndarray, Sequence[str]]:
    """Returns labels [n, 1] as [n], and strings as numbers with their names."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "US" or labels.ndim != 1:
        return labels, ()
    labels = labels.astype(str)
    names = np.array(class_names) if class_names else np.unique(labels)
    if unknown := sorted(set(labels.tolist()) - set(names.tolist())):
        raise ValueError(
            f"{file} has a label {unknown[0]!r} that the training images do not have; "
            "use the same labels in both"
        )
    return np.searchsorted(names, labels), tuple(names.tolist())


def _read(file: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is not an npz archive; write it with numpy.savez")
    try:
        with np.load(file, allow_pickle=False) as archive:
            wanted = {"images", "labels"} & set(archive.files)
            return {name: archive[name] for name in wanted or archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); write it again") from error
