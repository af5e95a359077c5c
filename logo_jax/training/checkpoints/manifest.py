"""What a checkpoint says of its leaves, by which damage and strangers are told.

Of each leaf, by its path: dtype and shape, and the crc32 of its bytes; and the crc32 of
all that.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Record = dict[str, Any]


class DamagedError(Exception):
    """A checkpoint that must not be used; the message says why."""


def make_manifest(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The manifest of leaves by path, to be stored as JSON."""
    records = {path: leaf_record(leaf) for path, leaf in leaves.items()}
    return {"leaves": records, "crc32": _crc32_of_json(records)}


def leaf_record(leaf: np.ndarray) -> Record:
    """The dtype and shape of a leaf, and its checksum."""
    flat = np.ascontiguousarray(leaf).reshape(-1)
    return {"array": _form(leaf), "crc32": zlib.crc32(flat.view(np.uint8).data)}


def sound_records(manifest: dict[str, Any]) -> dict[str, Record]:
    """The records of a manifest as it was read.

    Raises:
        DamagedError: if it is not as it was written.
    """
    records = manifest.get("leaves")
    if not records or manifest.get("crc32") != _crc32_of_json(records):
        raise DamagedError("manifest: checksum differs")
    return records


def without_part(
    stored: Mapping[str, Record], wanted: Mapping[str, Any], *, part: str
) -> dict[str, Record]:
    """Records by path, but for those of a part of the state that is not wanted.

    >>> stored = {"params/linear/bias": {}, "params/encoder/bias": {}}
    >>> list(without(stored, {}, part="linear"))
    ['params/encoder/bias']
    """
    return {
        path: kept
        for path, kept in stored.items()
        if path in wanted or part not in path.split("/")[1:2]
    }


def require_same(
    stored: Mapping[str, Record], wanted: Mapping[str, Any], where: str
) -> None:
    """Refuses a checkpoint of another network, method or optimiser.

    Args:
        stored: records by path.
        wanted: arrays or `jax.ShapeDtypeStruct`s by path.
        where: the checkpoint, to name.

    Raises:
        ValueError: naming a leaf that differs.
    """
    here = {path: _form(leaf) for path, leaf in wanted.items()}
    there = {path: leaf_record["array"] for path, leaf_record in stored.items()}
    for path in here | there:
        if here.get(path) != there.get(path):
            raise ValueError(
                f"{where} must fit this run, but {path} is {there.get(path, 'absent')} "
                f"there and {here.get(path, 'absent')} here; use the config that made "
                "it, or another work folder"
            )


def _form(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _crc32_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
