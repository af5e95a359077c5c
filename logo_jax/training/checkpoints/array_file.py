"""Named arrays in one safetensors file, written and read as a stream.

The functions of the safetensors library need the name of a local file, and some of them
keep two copies of all arrays in memory. The functions of this module need only a binary
stream and keep one array in memory at a time.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

CHUNK = 2**24  # bytes per read or write; some remote file systems copy each chunk
MAX_HEADER = 10**8  # bytes; the limit of the safetensors library
_LENGTH = 8  # bytes of the header's length, a little-endian integer
_DTYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}


def require_storable(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises an error if safetensors does not have the dtype of an array.

    Raises:
        ValueError: if an array cannot be stored; the message names the first one.
    """
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise ValueError(
                f"{name} is {array.dtype}, which safetensors cannot store; convert it "
                f"to one of {', '.join(_DTYPES)}"
            )


def write_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Writes arrays to a new stream.

    Returns:
        The CRC-32 checksum of each array's bytes, by name.
    """
    # Like safetensors, write arrays with larger items first, so that every array is
    # aligned to its item size.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, offset = {}, 0
    for name in order:
        end = offset + arrays[name].nbytes
        header[name] = _form(arrays[name]) | {"data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(_LENGTH, "little") + text)
    return {name: _write(file, arrays[name]) for name in order}


def read_arrays(
    file: IO[bytes], wanted: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Reads arrays from a stream one by one, in the order of the file.

    Args:
        file: readable and seekable stream, at its start.
        wanted: objects with a dtype and a shape, by array name; arrays with other names
            are not read.

    Yields:
        The name of an array and the array.

    Raises:
        ValueError: if the file is truncated, or an array has another dtype or shape.
        KeyError: if an array is missing.
    """
    length = int.from_bytes(_read(file, _LENGTH), "little")
    if length > MAX_HEADER:
        raise ValueError("the header is damaged")
    header = json.loads(_read(file, length))
    for name in sorted(wanted, key=lambda name: header[name]["data_offsets"]):
        start, end = header[name].pop("data_offsets")
        array = np.empty(wanted[name].shape, wanted[name].dtype)
        if header[name] != _form(array) or end - start != array.nbytes:
            raise ValueError(f"{name} has another dtype or shape in the header")
        file.seek(_LENGTH + length + start)
        flat, done = as_bytes(array), 0
        while done < len(flat):
            chunk = _read(file, min(CHUNK, len(flat) - done))
            flat[done : done + len(chunk)] = chunk
            done += len(chunk)
        yield name, array


def as_bytes(array: np.ndarray) -> memoryview:
    """Returns the bytes of an array in C order; a view if the array is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write(file: IO[bytes], array: np.ndarray) -> int:
    flat, crc32 = as_bytes(array), 0
    for start in range(0, len(flat), CHUNK):
        chunk = flat[start : start + CHUNK]
        crc32 = zlib.crc32(chunk, crc32)
        file.write(chunk)
    return crc32


def _read(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise ValueError("the file is truncated")
    return content


def _form(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape)}
