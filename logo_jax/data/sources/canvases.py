"""Images that were reduced to a canvas once, before training.

`python -m logo_jax.prepare --canvas` writes them, to a folder with these files:

    canvases.json       what the parts are: "train", "queries", and "bank" if it is not
                        the training set; written last
    PART.array_record   a record for each image: its pixels, or a JPEG of them; empty
                        for an image that could not be decoded
    PART.npz            `sizes`, (height, width) of the original images in pixels, int32
                        [n, 2], 0 for those that could not be decoded; and `labels`,
                        int32 [n] or [n, classes], as of `Record`

An image is downscaled as `decode.decode_to_canvas` does, each axis separately and only
if it exceeds the canvas.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from logo_jax.data.sources.base import Record

FILE = "canvases.json"
FORMATS = ("uint8", "jpeg")


class CanvasSplits(NamedTuple):
    """The parts of the images; `bank` and `queries` are None if there are none.

    `remark` states what is not used, or why there are no queries.
    """

    train: "CanvasSource"
    bank: "CanvasSource | None"
    queries: "CanvasSource | None"
    remark: str


@dataclasses.dataclass(frozen=True, eq=False)
class CanvasSource:
    """`ImageSource` of one part of the images.

    Attributes:
        origin: folder and part, for messages.
        rows: the records.
        sizes: (height, width) of the original images in pixels.
        labels: classes, or several labels per image; see `Record`.
        num_classes: number of classes; 0 if the images are unlabeled.
        class_names: names of the classes, indexed by label; may be empty.
        canvas: upper bound of the (height, width) of the stored images, in pixels.
        largest: (height, width) of every original image, if they have one size and none
            is larger than the canvas.
        format: one of `FORMATS`.
        crc32: checksum of the records, the sizes and the labels when they were written.
    """

    origin: str
    rows: Sequence[bytes]
    sizes: Int[np.ndarray, "n 2"]
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n c"]
    num_classes: int
    class_names: tuple[str, ...]
    canvas: tuple[int, int]
    largest: tuple[int, int] | None
    format: str
    crc32: int

    def __len__(self) -> int:
        return len(self.sizes)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        """Returns the images with the given numbers, in the given order."""
        return [self._record(int(i)) for i in ids]

    def name(self, i: int) -> str:
        """Name of image i, for error messages."""
        return f"image {i} of {self.origin}"

    def _record(self, i: int) -> Record:
        label = self.labels[i] if self.labels.ndim > 1 else int(self.labels[i])
        try:
            stored = self.rows[i]  # several in one call are slower: they are large
        except RuntimeError:  # the record does not have its checksum
            stored = b""
        if not stored:
            return Record(b"", label)  # counts as an image that cannot be decoded
        height, width = self.sizes[i].tolist()
        if self.format == "jpeg":
            return Record(stored, label, size=(height, width))
        shape = min(height, self.canvas[0]), min(width, self.canvas[1]), 3
        pixels = np.frombuffer(stored, np.uint8).reshape(shape)
        return Record(pixels, label, size=(height, width))


def is_written(folder: Path) -> bool:
    """Whether a folder is one that `prepare --canvas` wrote."""
    return (folder / FILE).is_file()


def load_canvases(folder: Path) -> CanvasSplits:
    """Opens the images of a folder that `prepare --canvas` wrote.

    Raises:
        FileNotFoundError: if the folder has no such images.
        ValueError: if a file is damaged, or was written by another version.
    """
    if not is_written(folder):
        raise FileNotFoundError(
            f"{folder / FILE} is missing; write it by python -m logo_jax.prepare "
            f"IMAGES --canvas=256 --out={folder}"
        )
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        parts = {
            name: _part(folder, name, found["format"], **fields)
            for name, fields in found["parts"].items()
        }
        bank = parts.get(found["bank"])
        return CanvasSplits(parts["train"], bank, parts.get("queries"), found["remark"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder} cannot be read ({reason}); write it again by "
            "python -m logo_jax.prepare --canvas"
        ) from error


def _part(
    folder: Path,
    name: str,
    format: str,
    *,
    images: int,
    canvas: Sequence[int],
    largest: Sequence[int] | None,
    class_names: Sequence[str],
    **fields: Any,
) -> CanvasSource:
    """Opens a part; the fields are those of the part in the file `FILE`."""
    # imported late, because it is not available for Windows
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    rows: Any = ArrayRecordDataSource([str(folder / f"{name}.array_record")])
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        sizes, labels = arrays["sizes"], arrays["labels"]
    if {len(rows), len(sizes), len(labels)} != {images}:
        raise ValueError(f"{name} has {len(rows)} records instead of {images}")
    height, width = canvas
    return CanvasSource(
        origin=f"{folder} ({name})",
        rows=rows,
        sizes=sizes,
        labels=labels,
        class_names=tuple(class_names),
        canvas=(height, width),
        largest=(largest[0], largest[1]) if largest else None,
        format=format,
        **fields,
    )
