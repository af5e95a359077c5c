"""What a compiled program sends from device to device, read from its HLO."""

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
# of a pair start and done, the second has the result alone
_INSTRUCTION = re.compile(rf" = (?P<results>.*?) (?P<kind>{'|'.join(KINDS)})(-done)?\(")
_ARRAY = re.compile(r"(?P<dtype>pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<shape>[\d,]*)\]")
_ORIGIN = re.compile(r'op_name="(?P<name>[^"]*)"')


class Collective(NamedTuple):
    """One exchange of a program.

    Attributes:
        kind: the HLO instruction.
        num_bytes: of what a device holds afterwards.
        origin: what it was traced from; several where XLA made one of them.
    """

    kind: str
    num_bytes: int
    origin: str


def collectives(hlo: str) -> list[Collective]:
    """All exchanges of a program, from the text of its optimised HLO.

    Raises:
        ValueError: where one stands in a loop, and the text does not say how often it
            runs.

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
                "be counted; take it out of the loop"
            )
    return found


def bytes_by_kind(exchanges: Iterable[Collective]) -> dict[str, int]:
    """Bytes of all exchanges of each kind that there is.

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
