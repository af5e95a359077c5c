"""Checkpoint manifest: dtypes, shapes and checksums of the leaves.

The manifest detects corruption and checkpoints of another model. It maps the path of
each leaf to a record with the dtype, the shape and the CRC-32 of the leaf's bytes, and
has a CRC-32 of all records.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from logo_jax.training.checkpoints.array_file import as_bytes

VERSION = 1  # of the format; for checkpoints without a version see `old_formats`

Record = dict[str, Any]


class DamagedError(Exception):
    """A checkpoint is damaged; the message gives the reason."""


def make_manifest(
    leaves: Mapping[str, np.ndarray], crc32s: Mapping[str, int]
) -> dict[str, Any]:
    """Returns the manifest of leaves by path, as a JSON object."""
    records = {path: _record(leaf, crc32s[path]) for path, leaf in leaves.items()}
    body = {"version": VERSION, "leaves": records}
    return body | {"crc32": _crc32_of_json(body)}


def leaf_record(leaf: np.ndarray) -> Record:
    """Returns the dtype, shape and checksum of a leaf."""
    return _record(leaf, zlib.crc32(as_bytes(leaf)))


def valid_records(manifest: dict[str, Any]) -> dict[str, Record]:
    """Verifies a manifest's checksum and returns its records.

    Raises:
        DamagedError: if the checksum does not match.
        ValueError: if the format is newer than that of this version of the library.
    """
    records, version = manifest.get("leaves"), manifest.get("version")
    body = {"version": version, "leaves": records} if version else records
    if not records or manifest.get("crc32") != _crc32_of_json(body):
        raise DamagedError("manifest: checksum differs")
    if version and version > VERSION:
        raise ValueError(
            f"the checkpoint format must be at most {VERSION}, got {version}; "
            "update logo_jax"
        )
    return records


def without_part(
    stored: Mapping[str, Record], wanted: Mapping[str, Any], *, part: str
) -> dict[str, Record]:
    """Returns records by path, without an unwanted part of the state.

    Records of wanted paths and of other parts are kept.

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
    """Raises an error if the checkpoint is of another network, method or optimizer.

    Args:
        stored: records by path.
        wanted: arrays or `jax.ShapeDtypeStruct`s by path.
        where: name of the checkpoint, for error messages.

    Raises:
        ValueError: if a leaf differs; the message names the leaf.
    """
    here = {path: _form(leaf) for path, leaf in wanted.items()}
    there = {path: record["array"] for path, record in stored.items()}
    for path in here | there:
        if here.get(path) != there.get(path):
            raise ValueError(
                f"{where} does not match this run: {path} is "
                f"{there.get(path, 'absent')} in the checkpoint and "
                f"{here.get(path, 'absent')} in the run; use the config of the "
                "checkpoint, or another --workdir"
            )


def _record(leaf: np.ndarray, crc32: int) -> Record:
    return {"array": _form(leaf), "crc32": crc32}


def _form(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _crc32_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
