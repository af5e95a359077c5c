"""Many file names in one array, without a Python object for each."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from logo_jax.data.sources.arrow import pa, pc

_AT_ONCE = 2**16  # names that are Python objects at the same time


class Names(Sequence[str]):
    """A sequence of file names, which costs their bytes and eight more for each.

    Names may have bytes that are not UTF-8, as `os.fsdecode` returns them.

    Args:
        array: the names as bytes, an Arrow array of type large_binary without nulls.
    """

    def __init__(self, array: Any):
        self.array = array

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Returns the given names."""
        encoded = map(os.fsencode, names)
        parts = [pa.array([], pa.large_binary())]
        while part := list(itertools.islice(encoded, _AT_ONCE)):
            parts.append(pa.array(part, pa.large_binary()))
        return cls(pa.concat_arrays(parts))

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, i: int) -> str: ...

    @overload
    def __getitem__(self, i: slice) -> "Names": ...

    def __getitem__(self, i: int | slice) -> "str | Names":
        if isinstance(i, slice):
            return Names(self.array[i])
        return os.fsdecode(self.array[int(i)].as_py())

    def __iter__(self) -> Iterator[str]:
        for part in self._parts():
            yield from map(os.fsdecode, part.to_pylist())

    def take(self, ids: Sequence[int] | np.ndarray) -> "Names":
        """Returns the names with the given numbers, in the given order."""
        return Names(self.array.take(pa.array(np.asarray(ids, np.int64))))

    def sorted(self) -> "Names":
        """Returns the names in the order of their bytes."""
        return Names(self.array.take(pc.array_sort_indices(self.array)))

    def folders(self, level: int) -> tuple[np.ndarray, list[str]]:
        """Returns the folder of each name at a level of its path, as a number.

        Returns:
            Numbers, int32 [n], and the sorted names of the folders; the name "" stands
            for paths that have no folder at this level.
        """
        numbers: dict[bytes, int] = {}
        parts = [
            np.array(
                [
                    numbers.setdefault(_part(name, level), len(numbers))
                    for name in part.to_pylist()
                ],
                np.int32,
            )
            for part in self._parts()
        ]
        found = list(map(os.fsdecode, numbers))
        order = sorted(range(len(found)), key=found.__getitem__)
        new = np.empty(len(found), np.int32)
        new[order] = np.arange(len(found))
        return new[np.concatenate([*parts, np.empty(0, np.int32)])], sorted(found)

    def joined(self, separator: bytes) -> Iterator[bytes]:
        """Yields parts of all names, joined by a separator."""
        for number, part in enumerate(self._parts()):
            yield separator * bool(number) + separator.join(part.to_pylist())

    def _parts(self) -> Iterator[Any]:
        for start in range(0, len(self), _AT_ONCE):
            yield self.array[start : start + _AT_ONCE]


def _part(name: bytes, level: int) -> bytes:
    """Returns the folder of a path at a level; b"" if there is none."""
    parts = name.split(os.fsencode(os.sep), level + 1)
    return parts[level] if len(parts) > level + 1 else b""


def as_utf8(name: str) -> str:
    r"""Returns the name of a file, with the bytes escaped that are not UTF-8.

    >>> print(as_utf8(os.fsdecode(b"\xe9t\xe9.png")))
    \xe9t\xe9.png
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")
