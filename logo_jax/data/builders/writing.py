"""Atomic preparation: data sets are written to a temporary folder, then moved."""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from logo_jax.data import datasets
from logo_jax.data.builders import downloads
from logo_jax.data.sources import tfds as tfds_source

_READABLE = tfds_source.READABLE_FORMAT


def write(
    name: str,
    make_builder: Callable[..., Any],
    folder: Path,
    expected: Mapping[str, int],
) -> Path:
    """Prepares a data set under folder if its splits have the expected sizes.

    An interrupted preparation leaves no data set behind. The next one starts from the
    beginning but reuses the completely downloaded files in `<folder>/downloads`.

    Args:
        name: name of the data set.
        make_builder: returns the TFDS builder, given `data_dir` and `file_format`.
        folder: TFDS data_dir to write to.
        expected: number of examples of each split, or of several splits joined by `+`;
            if empty, any numbers are accepted.

    Returns:
        The folder of the prepared data set.

    Raises:
        OSError: if a file cannot be read, downloaded or written.
        ValueError: if a file is not the published one, or the number of examples of a
            split is not the expected one.
    """
    apart = folder / f".preparing_{name}"  # same disk as `folder`: the move is atomic
    shutil.rmtree(apart, ignore_errors=True)
    apart.mkdir(parents=True)
    try:
        builder = make_builder(data_dir=apart, file_format=_READABLE)
        _download_and_prepare(builder, folder / "downloads")
        found = {
            split: info.num_examples for split, info in builder.info.splits.items()
        }
        datasets.require_counts(name, expected, found)
        written = folder / Path(builder.data_path).relative_to(apart)
        written.parent.mkdir(parents=True, exist_ok=True)
        return Path(builder.data_path).rename(written)
    finally:
        shutil.rmtree(apart)


def write_published(
    builder_class: type[Any],
    folder: Path,
    expected: Mapping[str, int],
    *,
    timeout_s: float = 5.0,
) -> Path:
    """Prepares a data set from its published files, if these are local or online.

    Args:
        builder_class: a TFDS builder class that inherits from `downloads.Published`.
        folder: TFDS data_dir to write to.
        expected: number of examples of each split, or of several joined by `+`.
        timeout_s: time to wait for a host to answer, in seconds.

    Returns:
        The folder of the prepared data set.

    Raises:
        FileNotFoundError: if a file is missing and its host does not answer.
        OSError: if a file cannot be read, downloaded or written.
        ValueError: if a file is not the published one, or the number of examples of a
            split is not the expected one.
    """
    downloads.require_files(folder, builder_class, timeout_s=timeout_s)
    return write(builder_class.name, builder_class, folder, expected)


def _download_and_prepare(builder: Any, download_dir: Path) -> None:
    try:
        with contextlib.redirect_stdout(None):  # TFDS prints the temporary folder
            builder.download_and_prepare(download_dir=download_dir)
    except (NonMatchingChecksumError, tfds.download.DownloadError) as error:
        raise ValueError(
            f"download of {builder.name} failed: {error}; try again, or copy the "
            f"file to {download_dir / 'manual'}"
        ) from error
    except AssertionError as error:  # TFDS raises it for unusable input files
        raise ValueError(f"{builder.name} cannot be prepared: {error}") from error
