"""Images from a folder with two NumPy archives, `train.npz` and `test.npz`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from logo_jax.data.sources.base import NO_LABEL, ArraySource, require_split


def load_npz(path: str | Path, split: str) -> ArraySource:
    """Loads the images of `<path>/<split>.npz` and its labels, if any.

    Args:
        path: folder of `train.npz` and, for evaluation, `test.npz`. Each contains
            `images`, uint8 [n, h, w, 3], and optionally `labels`, integers [n] or, for
            multi-label data, [n, classes].
        split: "train" or "test".

    Raises:
        FileNotFoundError: if the folder or the file is missing.
        ValueError: if the split is unknown, the file is damaged, or its arrays do not
            have this form. Pickled objects are never loaded.
    """
    require_split(split)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; give the folder that contains {split}.npz"
        )
    file = folder / f"{split}.npz"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; write it with numpy.savez, images=... and labels=..."
        )
    arrays = _read(file)
    if "images" not in arrays:
        raise ValueError(
            f"{file} must have an array 'images', got {sorted(arrays) or 'none'}"
        )
    labels = arrays.get("labels")
    if labels is not None and labels.ndim == 1 and NO_LABEL in labels:
        raise ValueError(
            f"{file}: label {NO_LABEL} is negative; number the classes from 0"
        )
    return ArraySource(arrays["images"], labels, origin=str(file))


def _read(file: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is not an npz archive; write it with numpy.savez")
    try:
        with np.load(file, allow_pickle=False) as archive:
            wanted = {"images", "labels"} & set(archive.files)
            return {name: archive[name] for name in wanted or archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); write it again") from error
