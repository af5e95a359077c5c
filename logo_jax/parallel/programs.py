"""What a compiled program exchanges and moves, read from its optimized HLO."""

import math
import re
from collections.abc import Iterable, Iterator
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
_HEAD = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .* \{")
_LINE = re.compile(
    r"\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<result>\(.*?\)|\S+) "
    r"(?P<operation>[\w\-]+)\((?P<operands>[^)]*)\)"
)
_BRANCHES = re.compile(
    r"branch_computations=\{(.*?)\}|(?:true|false)_computation=(%?[\w.\-]+)"
)
# they name, combine or wait for arrays, and move none
_FREE = {
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "tuple",
}


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

    @property
    def is_in_a_loop(self) -> bool:
        """Whether it is in the body of a loop, whose text has it once."""
        return "/while/" in self.origin


def collectives(hlo: str) -> list[Collective]:
    """Returns all collective operations in the text of a program's optimized HLO.

    >>> line = "%sum = (f32[2,3]{1,0}, bf16[]) all-reduce(%x, %y), channel_id=1"
    >>> collectives(line)
    [Collective(kind='all-reduce', num_bytes=26, origin='')]
    """
    return [
        Collective(match["kind"], _num_bytes(match["results"]), _origin(line))
        for line in hlo.splitlines()
        if (match := _INSTRUCTION.search(line))
    ]


def bytes_by_kind(exchanges: Iterable[Collective]) -> dict[str, int]:
    """Returns the total bytes of the collective operations of each kind.

    Raises:
        ValueError: if a collective operation is inside a loop, because the text does
            not contain the number of iterations.

    >>> bytes_by_kind([Collective("all-gather", size, "") for size in (8, 2)])
    {'all-gather': 10}
    """
    total: dict[str, int] = {}
    for each in exchanges:
        if each.is_in_a_loop:
            raise ValueError(
                f"{each.origin} exchanges values in a loop, so that its bytes cannot "
                "be counted; move it out of the loop"
            )
        total[each.kind] = total.get(each.kind, 0) + each.num_bytes
    return total


def moved_bytes(hlo: str) -> int:
    """Returns the bytes that the operations of a program read and write.

    They are those of the operands and the result of each operation, without what a
    fusion keeps in registers. Loops count as often as they run, if that is known, and
    conditionals as the branch that moves most. An operation that reads a part of an
    operand counts with all of it.

    >>> moved_bytes('''ENTRY %main (a: f32[4]) -> f32[4] {
    ...   %a = f32[4]{0} parameter(0)
    ...   ROOT %b = f32[4]{0} negate(f32[4]{0} %a)
    ... }''')
    32
    """
    program = _Program(hlo)
    return program.moved(program.entry)


def num_instructions(hlo: str) -> int:
    """Returns the number of instructions of a program, also inside its fusions."""
    return sum(len(lines) for lines in _Program(hlo).computations.values())


class _Program:
    """The computations of a program in HLO: lists of its instructions, by name."""

    def __init__(self, hlo: str):
        self.computations: dict[str, list[re.Match[str]]] = {}
        self.entry = name = ""
        self._sizes: dict[str, int] = {}
        for line in hlo.splitlines():
            if head := _HEAD.match(line):
                name = head["name"]
                self.computations[name] = []
                self.entry = name if head["entry"] else self.entry
            elif name and (found := _LINE.match(line)):
                self.computations[name].append(found)
                self._sizes[found["name"]] = _num_bytes(found["result"])

    def moved(self, computation: str) -> int:
        """Returns the bytes that a computation reads and writes."""
        return sum(self._all_moved(computation))

    def _all_moved(self, computation: str) -> Iterator[int]:
        for line in self.computations.get(computation, []):
            operation = line["operation"]
            if operation == "while":
                times = re.search(r'known_trip_count":\{"n":"(\d+)"', line.string)
                body = re.search(r"body=%?([\w.\-]+)", line.string)
                yield int(times[1] if times else 1) * self.moved(
                    body[1] if body else ""
                )
            elif operation == "call":
                body = re.search(r"to_apply=%?([\w.\-]+)", line.string)
                yield self.moved(body[1] if body else "")
            elif operation == "conditional":
                listed = _BRANCHES.findall(line.string)
                branches = re.findall(r"[\w.\-]+", " ".join(map("".join, listed)))
                yield max(map(self.moved, branches), default=0)
            elif operation not in _FREE and not operation.endswith("-done"):
                names = re.findall(r"%([\w.\-]+)", line["operands"])
                yield sum(self._sizes.get(x, 0) for x in [line["name"], *names])


def _origin(line: str) -> str:
    match = _ORIGIN.search(line)
    return match["name"] if match else ""


def _num_bytes(results: str) -> int:
    return sum(
        math.prod(int(n) for n in match["shape"].split(",") if n)
        * max(int(match["bits"] or 8) // 8, 1)
        for match in _ARRAY.finditer(results)
    )
