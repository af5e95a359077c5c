"""Reads the images of a data set once, to describe them before they are trained on."""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64

from logo_jax.data.decode import DecodeError, decode
from logo_jax.data.eval_crops import evenly_spaced, in_chunks
from logo_jax.data.headers import read_header
from logo_jax.data.sources.base import ImageSource, Record, class_of


class Survey(NamedTuple):
    """What is known of the images of a source, or of an evenly spaced part.

    Attributes:
        ids: numbers of the images in the source.
        kinds: number of images by format and mode, such as "JPEG RGB".
        sizes: (height, width) of the images that can be decoded, in pixels.
        labels: class of each image; NO_LABEL if unknown or multi-label.
        num_bytes: bytes of all images as they are stored.
        digests: 16 bytes for each image that are equal for equal stored bytes.
        damaged: names of the images that cannot be decoded, with the reason.
    """

    ids: Int[np.ndarray, " n"]
    kinds: Counter[str]
    sizes: Int[np.ndarray, "m 2"]
    labels: Int[np.ndarray, " n"]
    num_bytes: int
    digests: UInt64[np.ndarray, "n 2"]
    damaged: list[str]


class _Part(NamedTuple):
    """A survey of a few images, one row each; the size of a damaged image is 0."""

    kinds: Counter[str]
    rows: np.ndarray
    digests: bytes
    damaged: list[str]


def survey(
    source: ImageSource,
    limit: int = 0,
    *,
    threads: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> Survey:
    """Reads and decodes images, each once.

    Args:
        source: image source to read from.
        limit: number of images, evenly spaced; 0: all.
        threads: number of decoding threads; 0 for one per core.
        progress: called with the number of images that have been read, now and then.
    """
    ids = evenly_spaced(len(source), limit)
    read = functools.partial(_survey_few, source)
    parts = []
    for done, part in in_chunks(read, ids, threads):
        parts.append(part)
        progress(int(np.searchsorted(ids, done[-1])) + 1)
    rows = np.concatenate([part.rows for part in parts])
    return Survey(
        ids=ids,
        kinds=sum((part.kinds for part in parts), Counter()),
        sizes=rows[rows[:, 0] > 0, :2],
        labels=rows[:, 2],
        num_bytes=int(rows[:, 3].sum()),
        digests=np.frombuffer(b"".join(x.digests for x in parts), "u8").reshape(-1, 2),
        damaged=[line for part in parts for line in part.damaged],
    )


def _survey_few(source: ImageSource, ids: np.ndarray) -> _Part:
    kinds, rows, digests, damaged = Counter(), [], [], []
    for i, record in zip(ids.tolist(), source.records(ids), strict=True):
        height, width = 0, 0
        try:
            _, (height, width) = decode(record.image, decoding=record.decoding)
            header = read_header(record)
            kinds[header.kind if header else "unknown"] += 1
        except DecodeError as error:
            damaged.append(f"{source.name(i)}: {error}")
        digest, num_bytes = _digest(record)
        digests.append(digest)
        rows.append((height, width, class_of(record), num_bytes))
    return _Part(kinds, np.array(rows, np.int64), b"".join(digests), damaged)


def _digest(record: Record) -> tuple[bytes, int]:
    """A digest of an image as it is stored, and its bytes.

    A file that cannot be read, and an empty one, are equal to no other one.
    """
    stored = record.image
    try:
        content = stored.read_bytes() if isinstance(stored, Path) else stored
    except OSError:
        content = b""
    if isinstance(content, np.ndarray):
        content = str(content.shape).encode() + content.tobytes()
    key = content or str(stored).encode()
    return hashlib.blake2b(key, digest_size=16).digest(), len(content)


def equal_images(digests: UInt64[np.ndarray, "n 2"]) -> Iterator[np.ndarray]:
    """Yields the rows, in order, of each digest that several images have."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(1)
    starts = np.flatnonzero(is_first)
    stops = np.append(starts[1:], len(order))
    for i in np.flatnonzero(stops - starts > 1):
        yield np.sort(order[starts[i] : stops[i]])
