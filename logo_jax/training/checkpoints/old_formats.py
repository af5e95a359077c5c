"""Reads checkpoints of the formats before version 1.

They consist of two Orbax items: `state`, a PyTree in TensorStore files (one file per
leaf, or OCDBT), and `manifest`, in JSON.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath


def is_old(step_folder: epath.Path) -> bool:
    """Whether a checkpoint has one of the old formats."""
    return (step_folder / "manifest").exists()


def read_manifest(step_folder: epath.Path) -> dict[str, Any]:
    """Reads the manifest of a checkpoint in an old format, without verifying it.

    The manifest has the dtype, the shape and the checksum of each leaf.
    """
    return json.loads((step_folder / "manifest" / "metadata").read_bytes())


def read_leaves(
    step_folder: epath.Path, wanted: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the path and the array of each wanted leaf of a state.

    The arrays are not compared with their checksums in the manifest.
    """
    handler = ocp.PyTreeCheckpointHandler(
        type_handler_registry=ocp.type_handlers.create_type_handler_registry(
            (np.ndarray, _OneByOne())
        )
    )
    blank = {path: np.empty(x.shape, x.dtype) for path, x in wanted.items()}
    args = ocp.args.PyTreeRestore(blank, partial_restore=True)
    yield from handler.restore(step_folder / "state", args=args).items()


class _OneByOne(ocp.type_handlers.NumpyHandler):
    """Reads leaves sequentially.

    If leaves are read in parallel and one fails, Orbax abandons the others, and
    TensorStore's threads print their tracebacks.
    """

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> list[Any]:
        args = args or [None] * len(infos)
        leaves = []
        for info, arg in zip(infos, args, strict=True):
            leaves += await super().deserialize([info], arg and [arg])
        return leaves
