"""Reads checkpoints written before the packed format.

They are two Orbax items: `state`, a PyTree in TensorStore's files (one file a leaf, or
OCDBT), and `manifest`, JSON.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath


def is_old(step_folder: epath.Path) -> bool:
    """Whether a checkpoint has one of these formats."""
    return (step_folder / "manifest").exists()


def read_manifest(step_folder: epath.Path) -> dict[str, Any]:
    """The manifest as it was read, not checked."""
    return json.loads((step_folder / "manifest" / "metadata").read_bytes())


def read_leaves(
    step_folder: epath.Path, wanted: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Leaves by path, not checked."""
    handler = ocp.PyTreeCheckpointHandler(
        type_handler_registry=ocp.type_handlers.create_type_handler_registry(
            (np.ndarray, _OneByOne())
        )
    )
    blank = {path: np.empty(x.shape, x.dtype) for path, x in wanted.items()}
    args = ocp.args.PyTreeRestore(blank, partial_restore=True)
    yield from handler.restore(step_folder / "state", args=args).items()


class _OneByOne(ocp.type_handlers.NumpyHandler):
    """Reads no leaf while another is read.

    Orbax would abandon the others after a failure, and TensorStore's threads print
    their tracebacks.
    """

    async def deserialize(self, infos: Sequence[Any], args: Any = None) -> list[Any]:
        args = args or [None] * len(infos)
        leaves = []
        for info, arg in zip(infos, args, strict=True):
            leaves += await super().deserialize([info], arg and [arg])
        return leaves
