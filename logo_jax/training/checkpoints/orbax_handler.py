"""Orbax handler for a checkpoint's only item, `state`, stored in two files.

`arrays.safetensors` has all leaves by their paths; any safetensors library can read it.
`manifest.json` has the version of the format, and the dtype, shape and CRC-32 of each
leaf. Orbax adds its own files: metadata, and a marker of a complete checkpoint.
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
    """Writes the leaves (arrays) of a state in a background thread.

    The folder to write to must exist.

    Each checkpoint is written by one task, so no write continues after a failure.
    """

    def __init__(self):
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")

    async def async_save(self, directory: epath.Path, args: "StateArgs") -> list[Any]:
        """Starts writing; the leaves must not change until writing has finished."""
        return [self._thread.submit(write_state, directory, args.leaves)]

    def save(self, directory: epath.Path, args: "StateArgs") -> None:
        """Writes the leaves synchronously."""
        write_state(directory, args.leaves)

    def restore(self, directory: epath.Path, args: "StateArgs") -> dict[str, Any]:
        """Reads the leaves named in the arguments, without verifying them."""
        return dict(read_leaves(directory, args.leaves))

    def close(self) -> None:
        """Stops the thread."""
        self._thread.shutdown()


@ocp.args.register_with_handler(StateHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class StateArgs(ocp.args.CheckpointArgs):
    """Leaves by path: arrays to save, or shapes and dtypes of arrays to restore."""

    leaves: Mapping[str, Any]


def write_state(folder: epath.Path, leaves: Mapping[str, np.ndarray]) -> None:
    """Writes leaves, followed by their manifest."""
    with _durable(folder / ARRAYS) as file:
        crc32s = array_file.write_arrays(file, leaves)
    with _durable(folder / MANIFEST) as file:
        file.write(json.dumps(make_manifest(leaves, crc32s), indent=1).encode())


def read_manifest(folder: epath.Path) -> dict[str, Any]:
    """Reads a state's manifest.json, without verifying the manifest's checksum.

    Args:
        folder: folder of the state in a checkpoint.
    """
    return json.loads((folder / MANIFEST).read_bytes())


def read_leaves(folder: epath.Path, wanted: Mapping[str, Any]) -> Leaves:
    """Yields the path and the array of each wanted leaf of a state, one at a time.

    The arrays are not compared with their checksums in the manifest.

    Args:
        folder: folder of the state in a checkpoint.
        wanted: arrays or shapes and dtypes, by path, of the leaves to read.
    """
    with (folder / ARRAYS).open("rb") as file:
        yield from array_file.read_arrays(file, wanted)


@contextlib.contextmanager
def _durable(path: epath.Path) -> Iterator[IO[bytes]]:
    """Opens a new file that is synced to disk at the end, or removed on failure."""
    try:
        with path.open("wb") as file:
            yield file
            file.flush()
            # Streams to object stores have no file descriptor; closing commits them.
            with contextlib.suppress(AttributeError, io.UnsupportedOperation):
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)  # frees disk space, e.g. for metrics
        raise
