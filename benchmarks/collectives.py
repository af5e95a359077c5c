"""Collective operations of a compiled program and their bytes, read from its HLO."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
# of a pair of start and done, only the second one has the result alone
_INSTRUCTION = re.compile(rf" = (?P<results>.*?) (?P<kind>{'|'.join(KINDS)})(-done)?\(")
_ARRAY = re.compile(r"(?P<dtype>pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<shape>[\d,]*)\]")
_ORIGIN = re.compile(r'op_name="(?P<name>[^"]*)"')


class Collective(NamedTuple):
    """A collective operation of a program.

    Attributes:
        kind: name of the HLO instruction.
        num_bytes: bytes of its result on a device.
        origin: names of the operations that it was traced from; several if XLA merged
            them.
    """

    kind: str
    num_bytes: int
    origin: str


def collectives(hlo: str) -> list[Collective]:
    """Returns all collective operations in the text of a program's optimized HLO.

    Raises:
        ValueError: if a collective operation is inside a loop, because the text does
            not contain the number of iterations.

    >>> line = "%sum = (f32[2,3]{1,0}, bf16[]) all-reduce(%x, %y), channel_id=1"
    >>> collectives(line)
    [Collective(kind='all-reduce', num_bytes=26, origin='')]
    """
    found = [
        Collective(match["kind"], _num_bytes(match["results"]), _origin(line))
        for line in hlo.splitlines()
        if (match := _INSTRUCTION.search(line))
    ]
    for each in found:
        if "/while/" in each.origin:
            raise ValueError(
                f"{each.origin} exchanges values in a loop, so that its bytes cannot "
                "be counted; move it out of the loop"
            )
    return found


def bytes_by_kind(exchanges: Iterable[Collective]) -> dict[str, int]:
    """Returns the total bytes of the collective operations of each kind.

    >>> bytes_by_kind([Collective("all-gather", size, "") for size in (8, 2)])
    {'all-gather': 10}
    """
    total: dict[str, int] = {}
    for each in exchanges:
        total[each.kind] = total.get(each.kind, 0) + each.num_bytes
    return total


def _origin(line: str) -> str:
    match = _ORIGIN.search(line)
    return match["name"] if match else ""


def _num_bytes(results: str) -> int:
    return sum(
        math.prod(int(n) for n in match["shape"].split(",") if n)
        * max(int(match["bits"] or 8) // 8, 1)
        for match in _ARRAY.finditer(results)
    )
