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


class SplitRows(NamedTuple):
    """Rows of one TFDS split, or of several joined by `+`."""

    split: str
    indices: Indices


@dataclass(frozen=True)
class OfficialSplit:
    """Train, validation and test as the data set's authors publish them."""

    train: str = "train"
    val: str = "validation"
    test: str = "test"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose labels `draw` asks for."""
        return self.train, self.val, self.test

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, SplitRows]:
        """Every row of each split."""
        del rng
        return {
            part: SplitRows(split, np.arange(len(labels[split])))
            for part, split in zip(PARTS, self.splits, strict=True)
        }


@dataclass(frozen=True)
class ValidationSplit:
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

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, SplitRows]:
        """What is left of the training split, what is held out, the test split."""
        rows = rng.permutation(len(labels[self.train]))
        if self.per_class:
            val = _first_of_each_class(rows, labels[self.train], self.count)
        else:
            val = np.sort(rows[: self.count])
        train = np.setdiff1d(rows, val)
        test = np.arange(len(labels[self.test]))
        return {
            "train": SplitRows(self.train, train),
            "val": SplitRows(self.train, val),
            "test": SplitRows(self.test, test),
        }


@dataclass(frozen=True)
class PerClassSplit:
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

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, SplitRows]:
        """Disjoint rows, together all rows but those of the label left out."""
        of_pool = labels[self.pool]
        rows = rng.permutation(np.flatnonzero(of_pool != self.left_out))
        train = _first_of_each_class(rows, of_pool, self.train)
        rest = rows[~np.isin(rows, train)]
        val = _first_of_each_class(rest, of_pool, self.val)
        test = np.setdiff1d(rest, val)
        return {
            "train": SplitRows(self.pool, train),
            "val": SplitRows(self.pool, val),
            "test": SplitRows(self.pool, test),
        }


def _first_of_each_class(
    rows: Indices, labels: Int[np.ndarray, " n"], count: int
) -> Indices:
    """The first `count` rows of each class, sorted."""
    of_rows = labels[rows]
    firsts = [rows[of_rows == label][:count] for label in np.unique(of_rows)]
    return np.sort(np.concatenate(firsts))
