"""Many file names in one array, without a Python object for each."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa

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
        return cls(pa.array(map(os.fsencode, names), pa.large_binary()))

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

    def joined(self, separator: bytes) -> Iterator[bytes]:
        """Yields parts of all names, joined by a separator."""
        for number, part in enumerate(self._parts()):
            yield separator * bool(number) + separator.join(part.to_pylist())

    def _parts(self) -> Iterator[Any]:
        for start in range(0, len(self), _AT_ONCE):
            yield self.array[start : start + _AT_ONCE]
