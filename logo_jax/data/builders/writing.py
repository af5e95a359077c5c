"""Data sets written whole or not at all: in a folder apart, counted, then moved."""

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
    """Prepares a data set under folder, unless its counts are wrong.

    What is interrupted leaves no data set. Prepared again, it starts anew, from the
    files that had been downloaded whole, which stay in `<folder>/downloads`.

    Args:
        name: of the data set.
        make_builder: makes the TFDS builder, given `data_dir` and `file_format`.
        folder: data_dir to write under.
        expected: examples of each split, as in `catalogue.Dataset`; empty to take any.

    Returns:
        The folder written.

    Raises:
        OSError: if a file cannot be read, downloaded or written.
        ValueError: if a file is not the published one, or a split has another number
            of examples than expected.
    """
    apart = folder / f".preparing_{name}"  # on one disk with folder: moved in one step
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
    """The same for a builder of ours, once the files that it reads can be had.

    Args:
        builder_class: a `downloads.Published` TFDS builder.
        folder: as in `write`.
        expected: as in `write`.
        timeout_s: seconds to wait for a host to answer.

    Returns:
        The folder written.

    Raises:
        FileNotFoundError: if a file is missing and its host does not answer.
        OSError: as `write`.
        ValueError: as `write`.
    """
    downloads.require_files(folder, builder_class, timeout_s=timeout_s)
    return write(builder_class.name, builder_class, folder, expected)


def _download_and_prepare(builder: Any, download_dir: Path) -> None:
    try:
        with contextlib.redirect_stdout(None):  # TFDS prints the temporary folder
            builder.download_and_prepare(download_dir=download_dir)
    except (NonMatchingChecksumError, tfds.download.DownloadError) as error:
        raise ValueError(
            f"{builder.name} was not downloaded well: {error}; try again, or put the "
            f"file in {download_dir / 'manual'}"
        ) from error
    except AssertionError as error:  # so TFDS calls input that it cannot use
        raise ValueError(f"{builder.name} cannot be made: {error}") from error
