"""Named arrays in one safetensors file, written and read as a stream.

safetensors' own functions need the name of a local file, and some hold all arrays
twice. These need a binary stream only and hold one array at a time.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

CHUNK = 2**24  # bytes per read or write; some remote file systems copy what they get
MAX_HEADER = 10**8  # bytes; safetensors' own limit
_LENGTH = 8  # bytes of the little-endian length of the header
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
    """Refuses arrays of a dtype that safetensors does not have.

    Raises:
        ValueError: naming the first.
    """
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise ValueError(
                f"{name} is {array.dtype}, which safetensors cannot store; convert it "
                f"to one of {', '.join(_DTYPES)}"
            )


def write_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Writes arrays to a stream, from its start.

    Returns:
        The crc32 of each array's bytes, by name.
    """
    # Wide items first: then each array is aligned to its items, as safetensors does.
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
        file: readable and seekable, at its start.
        wanted: anything with a dtype and a shape, by name; the rest is not read.

    Yields:
        A name and its array.

    Raises:
        ValueError: if the file is cut short, or an array is absent or another one.
    """
    length = int.from_bytes(_read(file, _LENGTH), "little")
    if length > MAX_HEADER:
        raise ValueError("header is damaged")
    header = json.loads(_read(file, length))
    for name in sorted(wanted, key=lambda name: header[name]["data_offsets"]):
        start, end = header[name].pop("data_offsets")
        array = np.empty(wanted[name].shape, wanted[name].dtype)
        if header[name] != _form(array) or end - start != array.nbytes:
            raise ValueError(f"header has another {name}")
        file.seek(_LENGTH + length + start)
        flat, done = as_bytes(array), 0
        while done < len(flat):
            chunk = _read(file, min(CHUNK, len(flat) - done))
            flat[done : done + len(chunk)] = chunk
            done += len(chunk)
        yield name, array


def as_bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order; a view where the array lies in that order."""
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
        raise ValueError("file is cut short")
    return content


def _form(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape)}
