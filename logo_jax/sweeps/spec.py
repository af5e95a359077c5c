"""What a sweep file says: plain data, checked when read."""

import collections
import dataclasses
import graphlib
import re
import runpy
from collections.abc import Mapping
from typing import Any

from logo_jax import configs


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of the table: a config, and what is changed of it.

    Attributes:
        name: of its runs' folders, which are NAME_seed_SEED.
        config: file and variant, as `logo_jax.main` takes them.
        overrides: values by field of the config, such as "data.batch_size".
        published: of the sweep's first metric; None: no value is.
        baseline: name of the cell it is compared with, seed by seed; "": none.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    published: float | None = None
    baseline: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(
                f"cell name {self.name!r} must be letters, digits and any of ._- : it "
                "names a folder"
            )

    def flags(self, seed: int) -> list[str]:
        """The command line of one run, but for its folder."""
        fields = {**self.overrides, "seed": seed}
        changes = [f"--config.{name}={value}" for name, value in fields.items()]
        return [f"--config={self.config}", *changes]


@dataclasses.dataclass(frozen=True)
class Claim:
    """That one cell is above another, or below it.

    Attributes:
        text: as a reader should see it.
        cell: name of the one.
        over: name of the other.
        published: the difference elsewhere, in the metrics' unit; its sign is what
            is claimed.
    """

    text: str
    cell: str
    over: str
    published: float

    def __post_init__(self):
        if not self.published:
            raise ValueError(
                f"claim {self.text!r} has published={self.published}: its sign says "
                "which cell is above; give another number"
            )


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Cells, how often each is run, and by what they are compared.

    Attributes:
        cells: in the table's order.
        metrics: names in metrics.jsonl; the first is the published one and the one
            whose differences are told.
        seeds: of each cell's runs.
        claims: that the runs hold against what is published, in a table of their own.
    """

    cells: tuple[Setting, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    claims: tuple[Claim, ...] = ()

    def __post_init__(self):
        counts = collections.Counter(cell.name for cell in self.cells)
        twice = [name for name, count in counts.items() if count > 1]
        compared = {cell.baseline for cell in self.cells}
        compared.update(*((claim.cell, claim.over) for claim in self.claims))
        unknown = compared - {"", *counts}
        if twice or unknown:
            raise ValueError(
                f"a sweep's cells must have names of their own (not so: {twice}) and "
                f"what they are compared with among them (not so: {sorted(unknown)}); "
                "rename those"
            )
        self._refuse_circles()
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"a sweep's seeds={self.seeds} must differ: a run given twice would be "
                "counted twice"
            )
        if not (self.cells and self.metrics and self.seeds):
            raise ValueError(
                f"a sweep of {len(self.cells)} cells, {len(self.metrics)} metrics and "
                f"{len(self.seeds)} seeds has nothing to run; give one of each at least"
            )

    def _refuse_circles(self) -> None:
        compared = {cell.name: [cell.baseline] for cell in self.cells if cell.baseline}
        try:
            graphlib.TopologicalSorter(compared).prepare()
        except graphlib.CycleError as error:
            raise ValueError(
                f"cells are compared in a circle ({' -> '.join(error.args[1])}); give "
                "one of them no baseline"
            ) from None


def read(name: str) -> Sweep:
    """The sweep that a Python file describes: a dict named SWEEP of `Sweep`'s fields.

    Args:
        name: of the file, as `configs.find` takes it.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it describes none.
        TypeError: where a field is missing or unknown.
    """
    file = configs.find(name)
    said = runpy.run_path(str(file)).get("SWEEP")
    if not isinstance(said, dict):
        raise ValueError(f"{file} must define SWEEP, a dict; see configs/sweeps")
    cells = tuple(Setting(**cell) for cell in said.get("cells", ()))
    claims = tuple(Claim(**claim) for claim in said.get("claims", ()))
    fields: dict[str, Any] = said | {"cells": cells, "claims": claims}
    return Sweep(**fields)
