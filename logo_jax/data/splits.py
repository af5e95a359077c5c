"""Rules that divide a data set into a training, a validation and a test part.

The transfer protocol of the LoGo paper uses them. A rule takes the labels of each TFDS
split of the data set, and returns for each part a split and the numbers of its rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

PARTS = ("train", "val", "test")
Labels = Mapping[str, np.ndarray]
Indices = Int[np.ndarray, " m"]


class SplitRows(NamedTuple):
    """Rows of one TFDS split, or of several splits joined by `+`.

    Attributes:
        split: name of the split, or names joined by `+`.
        indices: numbers of the rows, in the order of the split's examples.
    """

    split: str
    indices: Indices


@dataclass(frozen=True)
class OfficialSplit:
    """The train, validation and test splits that the data set's authors publish."""

    train: str = "train"
    val: str = "validation"
    test: str = "test"

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits whose labels `draw` needs."""
        return self.train, self.val, self.test

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, SplitRows]:
        """Returns all rows of each split."""
        del rng
        return {
            part: SplitRows(split, np.arange(len(labels[split])))
            for part, split in zip(PARTS, self.splits, strict=True)
        }


@dataclass(frozen=True)
class ValidationSplit:
    """Takes the validation part from the training split; tests on another split.

    The paper publishes the number of rows that are held out, but not which ones; we
    sample them at random.

    Attributes:
        count: number of validation rows, per class if `per_class`, otherwise in total.
        per_class: whether `count` is per class.
        train: split from which validation rows are held out.
        test: split to test on.
    """

    count: int
    per_class: bool = False
    train: str = "train"
    test: str = "test"

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits whose labels `draw` needs."""
        return self.train, self.test

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, SplitRows]:
        """Returns the remaining training rows, the held-out rows and all test rows."""
        rows = rng.permutation(len(labels[self.train]))
        if self.per_class:
            of_train = labels[self.train]
            val = first_of_each_class(rows, of_train, lambda size: self.count)
        else:
            val = np.sort(rows[: self.count])
        return _held_out(val, self.train, self.test, labels)


@dataclass(frozen=True)
class BalancedSplit:
    """Takes a fifth of each class of the training split for validation.

    A class with one image has none for validation; one with two images or more has one
    or more for training and for validation.

    Attributes:
        train: split from which validation rows are held out.
        test: split to test on.
    """

    train: str = "train"
    test: str = "test"

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits whose labels `draw` needs."""
        return self.train, self.test

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, SplitRows]:
        """Returns the remaining training rows, the held-out rows and all test rows."""
        of_train = labels[self.train]
        rows = rng.permutation(len(of_train))
        val = first_of_each_class(
            rows, of_train, lambda size: min(max(1, round(size / 5)), size - 1)
        )
        return _held_out(val, self.train, self.test, labels)


@dataclass(frozen=True)
class PerClassSplit:
    """Fixed numbers of train and validation rows per class; the rest is for testing.

    The paper publishes the numbers, but not which rows; we sample them at random.

    Attributes:
        train: number of training rows per class.
        val: number of validation rows per class.
        pool: split expression with all images.
        left_out: label that is not a class of the protocol; its rows are not used.
    """

    train: int
    val: int
    pool: str
    left_out: int

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits whose labels `draw` needs."""
        return (self.pool,)

    def draw(self, labels: Labels, rng: np.random.Generator) -> dict[str, SplitRows]:
        """Returns disjoint rows that cover all rows except those labeled `left_out`."""
        of_pool = labels[self.pool]
        rows = rng.permutation(np.flatnonzero(of_pool != self.left_out))
        train = first_of_each_class(rows, of_pool, lambda size: self.train)
        rest = rows[~np.isin(rows, train)]
        val = first_of_each_class(rest, of_pool, lambda size: self.val)
        test = np.setdiff1d(rest, val)
        return {
            "train": SplitRows(self.pool, train),
            "val": SplitRows(self.pool, val),
            "test": SplitRows(self.pool, test),
        }


def first_of_each_class(
    rows: Indices, labels: Int[np.ndarray, " n"], count: Callable[[int], int]
) -> Indices:
    """Returns the first rows of each class, sorted.

    Args:
        rows: numbers of rows, in the order in which they are taken.
        labels: the class of every row of the split.
        count: function of the number of `rows` of a class that returns how many of
            them are taken.
    """
    of_class = (rows[labels[rows] == label] for label in np.unique(labels[rows]))
    return np.sort(np.concatenate([found[: count(len(found))] for found in of_class]))


def _held_out(
    val: Indices, train: str, test: str, labels: Labels
) -> dict[str, SplitRows]:
    """Returns the parts if some rows of the split `train` are held out."""
    rest = np.setdiff1d(np.arange(len(labels[train])), val)
    return {
        "train": SplitRows(train, rest),
        "val": SplitRows(train, val),
        "test": SplitRows(test, np.arange(len(labels[test]))),
    }
