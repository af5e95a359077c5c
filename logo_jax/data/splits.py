"""Which rows a transfer protocol trains, validates and tests on: rules and their draw.

Labels are given by split; a rule answers with rows of those splits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

PARTS = ("train", "val", "test")
Labels = Mapping[str, np.ndarray]
Indices = Int[np.ndarray, " m"]


class Rows(NamedTuple):
    """Rows of one TFDS split, or of several joined by `+`."""

    split: str
    indices: Indices


@dataclass(frozen=True)
class Official:
    """Train, validation and test as the data set's authors publish them."""

    train: str = "train"
    val: str = "validation"
    test: str = "test"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose labels `draw` asks for."""
        return self.train, self.val, self.test

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, Rows]:
        """Every row of each split."""
        del rng
        return {
            part: Rows(split, np.arange(len(labels[split])))
            for part, split in zip(PARTS, self.splits, strict=True)
        }


@dataclass(frozen=True)
class HeldOut:
    """Validation is held out of the training split; test is a split of its own.

    The paper gives how many rows are held out, not which: which ones is our draw.

    Attributes:
        count: rows held out, of each class or in all.
        per_class: whether they are counted by class.
        train: split held out of.
        test: split tested on.
    """

    count: int
    per_class: bool = False
    train: str = "train"
    test: str = "test"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose labels `draw` asks for."""
        return self.train, self.test

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, Rows]:
        """What is left of the training split, what is held out, the test split."""
        rows = rng.permutation(len(labels[self.train]))
        if self.per_class:
            val = _first_of_each_class(rows, labels[self.train], self.count)
        else:
            val = np.sort(rows[: self.count])
        train = np.setdiff1d(rows, val)
        test = np.arange(len(labels[self.test]))
        return {
            "train": Rows(self.train, train),
            "val": Rows(self.train, val),
            "test": Rows(self.test, test),
        }


@dataclass(frozen=True)
class DrawnPerClass:
    """So many rows of each class to train and validate on, the rest to test on.

    The paper gives the numbers, not the rows: which ones is our draw.

    Attributes:
        train: rows of each class to train on.
        val: rows of each class to validate on.
        pool: all images.
        left_out: a label that is no class of the protocol.
    """

    train: int
    val: int
    pool: str
    left_out: int

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose labels `draw` asks for."""
        return (self.pool,)

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, Rows]:
        """Disjoint rows, together all rows but those of the label left out."""
        of_pool = labels[self.pool]
        rows = rng.permutation(np.flatnonzero(of_pool != self.left_out))
        train = _first_of_each_class(rows, of_pool, self.train)
        rest = rows[~np.isin(rows, train)]
        val = _first_of_each_class(rest, of_pool, self.val)
        test = np.setdiff1d(rest, val)
        return {
            "train": Rows(self.pool, train),
            "val": Rows(self.pool, val),
            "test": Rows(self.pool, test),
        }


def held_out(size: int, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Rows to train on and rows held out to validate on, drawn from all alike.

    Args:
        size: rows in all.
        fraction: held out of them, rounded; in (0, 1).
        seed: of the draw.

    Returns:
        Both sorted; together every row once, and neither empty.

    Raises:
        ValueError: where one of the two would be empty.

    Source: linusericsson/ssl-transfer@linear.py, which holds out 20 % where a data set
        has no validation split of its own.
    """
    count = round(fraction * size)
    if not 0 < count < size:
        raise ValueError(
            f"a fraction of {fraction} of {size} rows leaves none to train or to "
            "validate on; use e.g. 0.2, and at least 5 rows"
        )
    labels = {"train": np.zeros(size), "test": np.zeros(0)}
    parts = HeldOut(count).draw(labels, np.random.default_rng(seed))
    return parts["train"].indices, parts["val"].indices


def _first_of_each_class(
    rows: Indices, labels: Int[np.ndarray, " n"], count: int
) -> Indices:
    """The first `count` rows of each class, sorted."""
    of_rows = labels[rows]
    firsts = [rows[of_rows == label][:count] for label in np.unique(of_rows)]
    return np.sort(np.concatenate(firsts))
