"""Dtypes, shapes and checksums of a checkpoint's leaves.

They tell corruption, and a checkpoint of another model. Each leaf has a record by its
path: dtype and shape, and the crc32 of its bytes. The records have a crc32 too.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from logo_jax.training.checkpoints.array_file import as_bytes

VERSION = 1  # of the format; checkpoints without one are older, see `old_formats`

Record = dict[str, Any]


class DamagedError(Exception):
    """A checkpoint that must not be used; the message says why."""


def make_manifest(
    leaves: Mapping[str, np.ndarray], crc32s: Mapping[str, int]
) -> dict[str, Any]:
    """The manifest of leaves by path, to be stored as JSON."""
    records = {path: _record(leaf, crc32s[path]) for path, leaf in leaves.items()}
    body = {"version": VERSION, "leaves": records}
    return body | {"crc32": _crc32_of_json(body)}


def leaf_record(leaf: np.ndarray) -> Record:
    """The dtype and shape of a leaf, and its checksum."""
    return _record(leaf, zlib.crc32(as_bytes(leaf)))


def sound_records(manifest: dict[str, Any]) -> dict[str, Record]:
    """The records of a manifest as it was read.

    Raises:
        DamagedError: if it is not as it was written.
        ValueError: if its format is newer than this program's.
    """
    records, version = manifest.get("leaves"), manifest.get("version")
    body = {"version": version, "leaves": records} if version else records
    if not records or manifest.get("crc32") != _crc32_of_json(body):
        raise DamagedError("manifest: checksum differs")
    if version and version > VERSION:
        raise ValueError(
            f"a checkpoint has format {version}, must be at most {VERSION}; "
            "update logo_jax"
        )
    return records


def without_part(
    stored: Mapping[str, Record], wanted: Mapping[str, Any], *, part: str
) -> dict[str, Record]:
    """Records by path, but for those of a part of the state that is not wanted.

    >>> stored = {"params/linear/bias": {}, "params/encoder/bias": {}}
    >>> list(without_part(stored, {}, part="linear"))
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
    """Refuses a checkpoint of another network, method or optimizer.

    Args:
        stored: records by path.
        wanted: arrays or `jax.ShapeDtypeStruct`s by path.
        where: the checkpoint, to name.

    Raises:
        ValueError: naming a leaf that differs.
    """
    here = {path: _form(leaf) for path, leaf in wanted.items()}
    there = {path: record["array"] for path, record in stored.items()}
    for path in here | there:
        if here.get(path) != there.get(path):
            raise ValueError(
                f"{where} must fit this run, but {path} is {there.get(path, 'absent')} "
                f"there and {here.get(path, 'absent')} here; use the config that made "
                "it, or another work folder"
            )


def _record(leaf: np.ndarray, crc32: int) -> Record:
    return {"array": _form(leaf), "crc32": crc32}


def _form(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _crc32_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
