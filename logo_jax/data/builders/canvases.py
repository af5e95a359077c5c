"""Writes images that are reduced to a canvas, for `data.source=canvases`."""

import contextlib
import functools
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Bool, Int
from tqdm import tqdm

from logo_jax.data.canvas import CorruptCounter, canvas_size, decode_record
from logo_jax.data.decode import DecodeError, Pixels, Size
from logo_jax.data.headers import sample_sizes
from logo_jax.data.load import ExperimentData
from logo_jax.data.prefetch import read_ahead
from logo_jax.data.sources.base import ImageSource
from logo_jax.data.sources.canvases import FILE

JPEG_QUALITY = 95  # with all pixels of the colors (4:4:4)
_READ_AT_ONCE = 32
# each record is a chunk of its own, so that it can be read alone
_OPTIONS = "group_size:1,uncompressed"


def write_canvases(
    data: ExperimentData,
    side: int,
    folder: Path,
    *,
    format: str = "uint8",
    max_corrupt: float = 0.0,
    threads: int = 0,
) -> dict[str, int]:
    """Writes the images of all parts, each reduced to a canvas, with sizes and labels.

    A progress bar is shown if the standard error is a terminal.

    Args:
        data: the images; 8-bit colors.
        side: side of the canvas in pixels, as `data.canvas` of a config.
        folder: folder to write to, which must not exist; sources/canvases.py describes
            its files.
        format: "uint8" for the pixels, "jpeg" for a JPEG of them.
        max_corrupt: largest allowed fraction of undecodable images.
        threads: number of decoding threads; 0 for one per core.

    Returns:
        The number of images of each part.

    Raises:
        ValueError: if more images are undecodable than allowed.
        OSError: if the disk has too little space, or a file cannot be written.
    """
    parts = {"train": data.train, "bank": data.bank, "queries": data.queries}
    bank = "bank" if data.bank is not None else ""
    if data.bank is data.train:
        del parts["bank"]
        bank = "train"
    sources = {name: source for name, source in parts.items() if source is not None}
    folder.mkdir()
    if format == "uint8":
        _require_space(folder, sources, side)
    write = functools.partial(
        _write_part,
        encode=_ENCODERS[format],
        max_corrupt=max_corrupt,
        threads=threads,
    )
    described = {
        "format": format,
        "bank": bank,
        "remark": data.remark,
        "parts": {
            name: write(source, canvas_size(source, side), folder / name)
            for name, source in sources.items()
        },
    }
    (folder / FILE).write_text(json.dumps(described, indent=1), encoding="utf-8")
    return {name: len(source) for name, source in sources.items()}


def _write_part(
    source: ImageSource,
    canvas: Size,
    path: Path,
    *,
    encode: Callable[[Pixels], bytes],
    max_corrupt: float,
    threads: int,
) -> dict:
    """Writes a part, and returns its fields in the file `FILE`."""
    count, crc = len(source), 0
    starts = range(0, count, _READ_AT_ONCE)
    skipped = CorruptCounter(source, max_corrupt)
    found: list[_Part] = []

    def read(i: int) -> _Part:
        ids = np.arange(starts[i], min(starts[i] + _READ_AT_ONCE, count))
        return _read_few(source, ids, canvas, encode)

    with (
        _writer(path.with_suffix(".array_record")) as write,
        tqdm(total=count, desc=path.name, unit=" images", disable=None) as bar,
        contextlib.closing(
            read_ahead(read, range(len(starts)), threads=threads)
        ) as reading,
    ):
        for part in reading:
            skipped.add(part.ids, part.failed)
            for stored in part.stored:
                write(stored)
                crc = zlib.crc32(stored, crc)
            found.append(part._replace(stored=[]))
            bar.update(len(part.ids))
    sizes = np.concatenate([part.sizes for part in found])
    labels = np.concatenate([part.labels for part in found])
    np.savez(path.with_suffix(".npz"), sizes=sizes, labels=labels)
    for array in (sizes, labels):
        crc = zlib.crc32(array.tobytes(), crc)
    fits = source.largest is not None and canvas == source.largest
    return {
        "images": count,
        "num_classes": source.num_classes,
        "class_names": list(getattr(source, "class_names", ())),
        "canvas": canvas,
        "largest": source.largest if fits else None,
        "crc32": crc,
    }


class _Part(NamedTuple):
    """A few images as they are stored; see sources/canvases.py."""

    ids: Int[np.ndarray, " n"]
    stored: list[bytes]
    sizes: Int[np.ndarray, "n 2"]
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n c"]
    failed: Bool[np.ndarray, " n"]


def _read_few(
    source: ImageSource,
    ids: np.ndarray,
    canvas: Size,
    encode: Callable[[Pixels], bytes],
) -> _Part:
    records = source.records(ids)
    stored, sizes = [], np.zeros((len(ids), 2), np.int32)
    for row, record in enumerate(records):
        try:
            pixels, sizes[row] = decode_record(record, canvas)
            stored.append(encode(pixels))
        except DecodeError:
            stored.append(b"")
    labels = np.array([record.label for record in records], np.int32)
    return _Part(ids, stored, sizes, labels, np.array([not x for x in stored]))


def _jpeg(pixels: Pixels) -> bytes:
    pixels = np.ascontiguousarray(pixels)
    return simplejpeg.encode_jpeg(
        pixels, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
    )


_ENCODERS: dict[str, Callable[[Pixels], bytes]] = {
    "uint8": lambda pixels: pixels.tobytes(),
    "jpeg": _jpeg,
}


@contextlib.contextmanager
def _writer(file: Path) -> Iterator[Callable[[bytes], None]]:
    """Opens a file of records and yields a function that writes a record.

    Raises:
        OSError: if the file cannot be written.
    """
    with _as_os_errors(file):
        writer = ArrayRecordWriter(str(file), _OPTIONS)

    def write(record: bytes) -> None:
        with _as_os_errors(file):
            writer.write(record)

    try:
        yield write
    finally:
        with _as_os_errors(file):
            writer.close()


@contextlib.contextmanager
def _as_os_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{file} cannot be written: {error}") from error


def _require_space(folder: Path, sources: dict[str, ImageSource], side: int) -> None:
    """Raises an error if the disk does not have the space of the reduced pixels.

    The sizes of the images are those of a few of them.
    """
    needed = 0.0
    for source in sources.values():
        stored = np.minimum(sample_sizes(source), canvas_size(source, side))
        needed += 3 * len(source) * stored.prod(axis=1).mean() if len(stored) else 0
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder.parent} has {free / 1e9:,.1f} GB of free space, but the pixels "
            f"need about {needed / 1e9:,.1f} GB; use --format=jpeg, a smaller --canvas "
            "or another --out"
        )
