"""Description of a sweep, read from a sweep file and validated."""

import collections
import dataclasses
import graphlib
import re
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from logo_jax import configs


@dataclasses.dataclass(frozen=True)
class Setting:
    """A cell of a sweep, which is one row of the table: a config with overrides.

    Attributes:
        name: name of the cell; its runs have the folders NAME_seed_SEED.
        config: config file and, optionally, variant: "FILE" or "FILE:VARIANT".
        overrides: new values by config field, such as "data.batch_size".
        published: published value of the sweep's first metric; None if there is none.
        baseline: name of the cell that this cell is compared with, seed by seed; "" if
            there is none.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    published: float | None = None
    baseline: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(
                f"cell name {self.name!r} must have only letters, digits and any of "
                "._- because it names a folder"
            )
        if own := {"seed", "seeds"} & set(self.overrides):
            raise ValueError(
                f"cell {self.name!r} must not set {', '.join(sorted(own))}, because "
                "every cell has the seeds of the sweep; set seeds of the sweep"
            )

    def flags(self, seed: int) -> list[str]:
        """Returns the command line of the run with a seed, without the folder."""
        fields = {**self.overrides, "seed": seed}
        changes = [f"--config.{name}={value}" for name, value in fields.items()]
        return [f"--config={self.config}", *changes]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim that the value of one cell is higher, or lower, than that of another.

    Attributes:
        text: description of the claim for readers.
        cell: name of the first cell.
        over: name of the cell that the first cell is compared with.
        published: published difference, in the unit of the metrics; the claim is its
            sign.
    """

    text: str
    cell: str
    over: str
    published: float

    def __post_init__(self):
        if not self.published:
            raise ValueError(
                f"claim {self.text!r} has published={self.published}, but its sign "
                "says which cell is higher; give a number other than 0"
            )


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Cells with their seeds, and the metrics and claims that they are compared by.

    Attributes:
        cells: cells, in the order of the table.
        metrics: names of metrics in metrics.jsonl. Published values and differences
            refer to the first metric.
        seeds: seeds of the runs of each cell.
        claims: published claims that are compared with the runs in a separate table.
    """

    cells: tuple[Setting, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    claims: tuple[Claim, ...] = ()

    def __post_init__(self):
        for name in ("metrics", "seeds"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ValueError(
                    f"a sweep's {name}={value!r} must be a tuple; use ({value!r},)"
                )
        counts = collections.Counter(cell.name for cell in self.cells)
        twice = [name for name, count in counts.items() if count > 1]
        compared = {cell.baseline for cell in self.cells}
        compared.update(*((claim.cell, claim.over) for claim in self.claims))
        unknown = compared - {"", *counts}
        if twice or unknown:
            raise ValueError(
                f"a sweep's cells must have unique names (duplicates: {twice}) and "
                "must be compared with cells of the sweep (unknown: "
                f"{sorted(unknown)}); rename them"
            )
        self._refuse_circles()
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"a sweep's seeds={self.seeds} must differ from each other, because a "
                "repeated run would be counted twice"
            )
        if not (self.cells and self.metrics and self.seeds):
            raise ValueError(
                f"a sweep of {len(self.cells)} cells, {len(self.metrics)} metrics and "
                f"{len(self.seeds)} seeds has nothing to run; give at least one of each"
            )

    def _refuse_circles(self) -> None:
        compared = {cell.name: [cell.baseline] for cell in self.cells if cell.baseline}
        try:
            graphlib.TopologicalSorter(compared).prepare()
        except graphlib.CycleError as error:
            raise ValueError(
                f"baselines of cells form a cycle ({' -> '.join(error.args[1])}); "
                "remove the baseline of one of them"
            ) from None


def read(name: str) -> Sweep:
    """Reads a sweep from a Python file that defines SWEEP, a dict of `Sweep`'s fields.

    Args:
        name: path of a file; or path of a sweep of the package relative to
            logo_jax/configs, such as "sweeps/stl10_crop_ratio".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file does not define a valid sweep, or raises an error.
        TypeError: if a field is missing or unknown.
    """
    file = configs.find(name)
    try:
        described = runpy.run_path(str(file)).get("SWEEP")
    except Exception as error:  # a sweep file may raise any error
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} raises {type(error).__name__}: {reason}") from error
    if not isinstance(described, dict):
        raise ValueError(f"{file} must define SWEEP, a dict; see configs/sweeps")
    cells = tuple(Setting(**cell) for cell in described.get("cells", ()))
    claims = tuple(Claim(**claim) for claim in described.get("claims", ()))
    fields: dict[str, Any] = described | {"cells": cells, "claims": claims}
    return Sweep(**fields)
