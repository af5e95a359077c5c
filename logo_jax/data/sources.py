"""The one table from a configuration's `data.source` to the code that reads it."""

from collections.abc import Callable

from logo_jax.data import npz, photographs
from logo_jax.data.images import ImageSet


def load(
    source: str, split: str, *, name: str = "", path: str = "", data_dir: str = ""
) -> ImageSet:
    """All images of one split of a source, decoded.

    Args:
        source: "tfds", "npz" or "photographs".
        split: "train" or "test"; for tfds any of the data set's splits or a slice.
        name: for tfds, the data set.
        path: for npz, the folder of `train.npz` and `test.npz`.
        data_dir: for tfds, where data sets are prepared; TFDS's default if empty.

    Raises:
        ValueError: if the source is unknown, lacks its name or path, or holds data
            that are not as its loader describes.
        FileNotFoundError: if the data are not there.
    """
    if source not in _LOADERS:
        raise ValueError(f"source={source!r} must be one of {', '.join(_LOADERS)}")
    return _LOADERS[source](split, name, path, data_dir)


def _tfds(split: str, name: str, path: str, data_dir: str) -> ImageSet:
    del path
    # TFDS takes most of a second to import; who reads npz should not wait for it.
    from logo_jax.data import tfds_source

    if not name:
        raise ValueError("source='tfds' needs the data set's name, such as 'cifar10'")
    return tfds_source.load(name, split, data_dir)


def _npz(split: str, name: str, path: str, data_dir: str) -> ImageSet:
    del name, data_dir
    if not path:
        raise ValueError("source='npz' needs path, the folder that holds train.npz")
    return npz.load(path, split)


def _photographs(split: str, name: str, path: str, data_dir: str) -> ImageSet:
    del name, path, data_dir
    return photographs.load(split)


_LOADERS: dict[str, Callable[[str, str, str, str], ImageSet]] = {
    "tfds": _tfds,
    "npz": _npz,
    "photographs": _photographs,
}
