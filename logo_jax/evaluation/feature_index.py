"""A file of features and names that is searched exactly, a part at a time.

The file is in Arrow's IPC format: `pyarrow`, pandas and polars read it. It has the
columns file, class_name and features, and a JSON text with all other facts in the
metadata of its schema. Neither writing nor searching keeps more than one part of
`PART_BYTES` in memory, however many images there are.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from pyarrow import ipc

from logo_jax.evaluation.features import Features
from logo_jax.evaluation.nearest_neighbors import make_bank, search
from logo_jax.parallel.mesh import make_mesh

PART_BYTES = 2**25  # of features
_ABOUT = b"logo_jax.index"


class Entries(NamedTuple):
    """Some images of an index.

    Attributes:
        files: name of each image.
        class_names: class of each image; None if unknown.
        features: features of each image, float32 [n, d].
    """

    files: list[str]
    class_names: list[str | None]
    features: np.ndarray

    def rows(self, start: int, stop: int) -> "Entries":
        """Returns the images from number `start` to `stop` - 1."""
        chosen = slice(start, stop)
        return self._replace(
            files=self.files[chosen],
            class_names=self.class_names[chosen],
            features=self.features[chosen],
        )


@dataclasses.dataclass(frozen=True)
class FeatureIndex:
    """An index that is open for searching.

    Attributes:
        path: path of the file.
        about: facts about the features, as they were given to `write`.
        size: number of images.
        width: number of features of an image.
    """

    path: Path
    about: Mapping[str, Any]
    size: int
    width: int

    def nearest(
        self, queries: Float[np.ndarray, "q d"], k: int
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """Returns the k images that are most similar to each query.

        All devices of this process share the search. Of images with equal cosines the
        first is taken.

        Args:
            queries: vectors of any length.
            k: number of images; at most `size` are returned.

        Returns:
            Cosines in descending order, and the numbers of the images.

        Raises:
            ValueError: if the queries have another width, or the file is damaged.
        """
        if queries.shape[1] != self.width:
            raise ValueError(
                f"the queries have {queries.shape[1]} features, but those of "
                f"{self.path} have {self.width}; use the encoder of the index"
            )
        mesh = make_mesh()
        cosines = np.zeros((len(queries), 0), np.float32)
        rows = np.zeros((len(queries), 0), np.int64)
        first = 0
        for part in self._parts():
            bank = make_bank(Features(part, np.zeros(len(part), np.int32)), mesh)
            found = search(queries, bank, min(k, len(part)))
            cosines = np.concatenate([cosines, found[0]], axis=1)
            rows = np.concatenate([rows, found[1] + np.int64(first)], axis=1)
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            cosines, rows = (
                np.take_along_axis(x, best, axis=1) for x in (cosines, rows)
            )
            first += len(part)
        return cosines, rows

    def entries(self, rows: Sequence[int] | np.ndarray) -> list[tuple[str, str | None]]:
        """Returns the names and classes of images, by their numbers."""
        with _opened(self.path, ["file", "class_name"]) as reader:
            length = _part_length(reader)
            parts: dict[int, Any] = {}
            found = []
            for row in map(int, rows):
                number = row // length
                if number not in parts:
                    parts[number] = reader.get_batch(number)
                part = parts[number]
                cells = (part[name][row % length] for name in ("file", "class_name"))
                found.append(tuple(cell.as_py() for cell in cells))
        return found

    def _parts(self) -> Iterator[np.ndarray]:
        with _opened(self.path, ["features"]) as reader:
            for i in range(reader.num_record_batches):
                flat = reader.get_batch(i)["features"].flatten()
                yield flat.to_numpy().reshape(-1, self.width)


def write(path: Path, about: Mapping[str, Any], parts: Iterable[Entries]) -> int:
    """Writes an index and returns the number of its images.

    Args:
        path: the file.
        about: facts about the features, as JSON can store them.
        parts: the images, one part after another.

    Raises:
        ValueError: if there are no images, or features are not finite.
    """
    size, writer = 0, None
    with pa.OSFile(str(path), "wb") as sink:
        for part in _regrouped(parts):
            if not np.isfinite(part.features).all():
                bad = int(np.argmin(np.isfinite(part.features).all(1)))
                raise ValueError(
                    f"the features of {part.files[bad]} are not finite; check that all "
                    "weights of the encoder are"
                )
            batch = _batch(part)
            if writer is None:
                facts = {_ABOUT: json.dumps(dict(about)).encode()}
                writer = ipc.new_file(sink, batch.schema.with_metadata(facts))
            writer.write_batch(batch)
            size += len(part.files)
        if writer is None:
            raise ValueError("there are no images to write an index of")
        writer.close()
    return size


def read(path: Path) -> FeatureIndex:
    """Opens an index.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an index, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file; write an index by logo_jax.embed DIR --index"
        )
    with _opened(path) as reader:
        schema = reader.schema
        about = (schema.metadata or {}).get(_ABOUT)
        if about is None:
            raise ValueError(
                f"{path} is not an index; write one by logo_jax.embed DIR --index"
            )
        last = reader.num_record_batches - 1
        size = last * _part_length(reader) + reader.get_batch(last).num_rows
        width = schema.field("features").type.list_size
    return FeatureIndex(path, json.loads(about), size, width)


@contextlib.contextmanager
def _opened(
    path: Path, columns: Sequence[str] = ()
) -> Iterator[ipc.RecordBatchFileReader]:
    """Yields a reader of some columns of an index, or of all; errors name the file."""
    try:
        with pa.OSFile(str(path)) as file:
            names = ipc.open_file(file).schema.names if columns else []
            numbers = [names.index(name) for name in columns]
            options = ipc.IpcReadOptions(included_fields=numbers)
            yield ipc.open_file(file, options=options)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is damaged, or not an index ({error}); write it again by "
            "logo_jax.embed DIR --index"
        ) from error


def _part_length(reader: ipc.RecordBatchFileReader) -> int:
    """Number of images in every part but the last."""
    return reader.get_batch(0).num_rows


def _batch(part: Entries) -> pa.RecordBatch:
    rows, width = part.features.shape
    flat = pa.array(np.ascontiguousarray(part.features, np.float32).reshape(-1))
    columns = {
        "file": pa.array(part.files, pa.large_string()),
        "class_name": pa.array(part.class_names, pa.large_string()),
        "features": pa.FixedSizeListArray.from_arrays(flat, width),
    }
    return pa.RecordBatch.from_pydict(columns)


def _regrouped(parts: Iterable[Entries]) -> Iterator[Entries]:
    """Yields parts of `PART_BYTES` of features, which are equally long but the last."""
    kept: list[Entries] = []
    for part in parts:
        kept.append(part)
        length = max(1, PART_BYTES // max(1, 4 * part.features.shape[1]))
        if sum(len(x.files) for x in kept) < length:
            continue
        whole = _joined(kept)
        count = len(whole.files) // length * length
        for start in range(0, count, length):
            yield whole.rows(start, start + length)
        kept = [whole.rows(count, len(whole.files))]
    if kept and (rest := _joined(kept)).files:
        yield rest


def _joined(parts: list[Entries]) -> Entries:
    return Entries(
        [name for part in parts for name in part.files],
        [name for part in parts for name in part.class_names],
        np.concatenate([part.features for part in parts]),
    )
