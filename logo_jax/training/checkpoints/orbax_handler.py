"""Writes and reads the one item of a checkpoint, `state`, of at most two files.

`arrays.safetensors` has all leaves by their paths, and any safetensors library opens
it. `manifest.json` has the version of this format, and the dtype, shape and crc32 of
each leaf. Orbax adds files of its own: its metadata, and a note that the checkpoint is
complete.
"""

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from logo_jax.training.checkpoints import array_file
from logo_jax.training.checkpoints.manifest import make_manifest

ARRAYS = "arrays.safetensors"
MANIFEST = "manifest.json"

Leaves = Iterator[tuple[str, np.ndarray]]


class StateHandler(ocp.AsyncCheckpointHandler):
    """Writes leaves by path, in a thread of its own; the folder must exist.

    One write is one task of the thread, so none is under way once it has failed.
    """

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")

    async def async_save(self, directory: epath.Path, args: "StateArgs") -> list[Any]:
        """Starts writing; the leaves must not change meanwhile."""
        return [self._thread.submit(write_state, directory, args.leaves)]

    def save(self, directory: epath.Path, args: "StateArgs") -> None:
        """Writes."""
        write_state(directory, args.leaves)

    def restore(self, directory: epath.Path, args: "StateArgs") -> dict[str, Any]:
        """Reads all leaves that the arguments name, without checking them."""
        return dict(read_leaves(directory, args.leaves))

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()


@ocp.args.register_with_handler(StateHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class StateArgs(ocp.args.CheckpointArgs):
    """Leaves by path: arrays to save, or what arrays to restore look like."""

    leaves: Mapping[str, Any]


def write_state(folder: epath.Path, leaves: Mapping[str, np.ndarray]) -> None:
    """Writes leaves, and then their manifest."""
    with _durable(folder / ARRAYS) as file:
        crc32s = array_file.write_arrays(file, leaves)
    with _durable(folder / MANIFEST) as file:
        file.write(json.dumps(make_manifest(leaves, crc32s), indent=1).encode())


def read_manifest(folder: epath.Path) -> dict[str, Any]:
    """The manifest as it was read, not checked."""
    return json.loads((folder / MANIFEST).read_bytes())


def read_leaves(folder: epath.Path, wanted: Mapping[str, Any]) -> Leaves:
    """Leaves by path, one by one, not checked."""
    with (folder / ARRAYS).open("rb") as file:
        yield from array_file.read_arrays(file, wanted)


@contextlib.contextmanager
def _durable(path: epath.Path) -> Iterator[IO[bytes]]:
    """A new file, which is on the disk at the end, or gone if that fails."""
    try:
        with path.open("wb") as file:
            yield file
            file.flush()
            # a stream to an object store has no descriptor; closing it commits
            with contextlib.suppress(AttributeError, io.UnsupportedOperation):
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)  # a full disk needs the room for metrics
        raise
