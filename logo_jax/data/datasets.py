"""Catalog of the LoGo paper's data sets: TFDS names, sizes, metrics and splits.

Sizes and metrics are those of Table 1 of LoGo's supplement; those of CIFAR are BYOL's
(https://arxiv.org/abs/2006.07733). This module reads no files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from logo_jax.data.splits import (
    PARTS,
    Labels,
    OfficialSplit,
    PerClassSplit,
    SplitRows,
    ValidationSplit,
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set of the paper.

    Attributes:
        name: name in configs and for `prepare`.
        tfds: TFDS name, including the TFDS config if the data set has several.
        examples: number of examples of each TFDS split. The key joins splits by `+` if
            only their total is fixed. A prepared data set must have these numbers.
        num_classes: number of classes in the protocol; 0 if labels are not used.
        side: side of all images in pixels; 0 if they differ.
        metric: "top1", "mean_per_class" (mean recall over classes) or "map" (for
            multi-label images); "" if labels are not used.
        pretrain: TFDS split expression to pretrain on.
        train: labeled split to train a classifier on, also kNN's bank; "" for none.
        test: labeled split to evaluate on; "" for none.
        split: rule that makes the train, validation and test sets of the transfer
            protocol; None if the paper does not transfer to this data set.
        sizes: published numbers of train, validation and test images; None if `split`
            is None.
        by_hand: files that cannot be downloaded and must be placed by hand.
        where: source of the files in `by_hand`.
    """

    name: str
    tfds: str
    examples: Mapping[str, int]
    num_classes: int
    metric: str
    side: int = 0
    pretrain: str = "train"
    train: str = "train"
    test: str = "test"
    split: OfficialSplit | ValidationSplit | PerClassSplit | None = None
    sizes: tuple[int, int, int] | None = None
    by_hand: tuple[str, ...] = ()
    where: str = ""


_IMAGENET_FILES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
_IMAGENET_SITE = "register at https://image-net.org/download-images"
_ALL = (
    Dataset(
        name="cifar10",
        tfds="cifar10",
        side=32,
        examples={"train": 50_000, "test": 10_000},
        num_classes=10,
        metric="top1",
        split=ValidationSplit(5_000),
        sizes=(45_000, 5_000, 10_000),
    ),
    Dataset(
        name="cifar100",
        tfds="cifar100",
        side=32,
        examples={"train": 50_000, "test": 10_000},
        num_classes=100,
        metric="top1",
        split=ValidationSplit(5_067),
        sizes=(44_933, 5_067, 10_000),
    ),
    Dataset(
        name="stl10",
        tfds="stl10",
        side=96,
        # the British spelling is the name of TFDS's split
        examples={"train": 5_000, "test": 8_000, "unlabelled": 100_000},
        num_classes=10,
        metric="top1",
        pretrain="train+unlabelled",
    ),
    Dataset(
        name="imagenet2012",
        tfds="imagenet2012",
        examples={"train": 1_281_167, "validation": 50_000},
        num_classes=1000,
        metric="top1",
        test="validation",
        by_hand=_IMAGENET_FILES,
        where=_IMAGENET_SITE,
    ),
    Dataset(
        name="imagenet100",
        tfds="imagenet100",
        examples={"train": 126_689, "validation": 5_000},
        num_classes=100,
        metric="top1",
        test="validation",
        by_hand=_IMAGENET_FILES,
        where=_IMAGENET_SITE,
    ),
    Dataset(
        name="coco",
        tfds="coco/2017",
        examples={"train": 118_287, "validation": 5_000, "test": 40_670},
        num_classes=0,
        metric="",
        train="",
        test="",
    ),
    Dataset(
        name="voc2007",
        tfds="voc/2007",
        examples={"train": 2_501, "validation": 2_510, "test": 4_952},
        num_classes=20,
        metric="map",
        train="train+validation",
        split=OfficialSplit(),
        sizes=(2_501, 2_510, 4_952),
    ),
    Dataset(
        name="food101",
        tfds="food101",
        examples={"train": 75_750, "validation": 25_250},
        num_classes=101,
        metric="top1",
        test="validation",
        split=ValidationSplit(75, per_class=True, test="validation"),
        sizes=(68_175, 7_575, 25_250),
    ),
    Dataset(
        name="mit67",
        tfds="mit67",
        examples={"train": 5_360, "test": 1_340},
        num_classes=67,
        metric="top1",
        split=ValidationSplit(10, per_class=True),
        sizes=(4_690, 670, 1_340),
    ),
    Dataset(
        name="pets",
        tfds="oxford_iiit_pet",
        examples={"train": 3_680, "test": 3_669},
        num_classes=37,
        metric="mean_per_class",
        split=ValidationSplit(20, per_class=True),
        sizes=(2_940, 740, 3_669),
    ),
    Dataset(
        name="flowers102",
        tfds="oxford_flowers102",
        examples={"train": 1_020, "validation": 1_020, "test": 6_149},
        num_classes=102,
        metric="mean_per_class",
        split=OfficialSplit(),
        sizes=(1_020, 1_020, 6_149),
    ),
    # TFDS samples train and test in the file system's order. Therefore these splits,
    # the order of the pool and our own sample differ between machines; the set of all
    # images does not. Label 4 is background_google.
    Dataset(
        name="caltech101",
        tfds="caltech101",
        examples={"train+test": 9_144},
        num_classes=101,
        metric="mean_per_class",
        split=PerClassSplit(25, 5, pool="train+test", left_out=4),
        sizes=(2_525, 505, 5_647),
    ),
    Dataset(
        name="cars196",
        tfds="cars196",
        examples={"train": 8_144, "test": 8_041},
        num_classes=196,
        metric="top1",
        split=ValidationSplit(1_650),
        sizes=(6_494, 1_650, 8_041),
        by_hand=(
            *("cars_train.tgz", "cars_test.tgz"),
            *("car_devkit.tgz", "cars_test_annos_withlabels.mat"),
        ),
        where="the authors' site is offline; any copy with the right sha256 works, see "
        "https://github.com/tensorflow/datasets/issues/5053",
    ),
    Dataset(
        name="aircraft",
        tfds="fgvc_aircraft",
        examples={"train": 3_334, "validation": 3_333, "test": 3_333},
        num_classes=100,
        metric="mean_per_class",
        split=OfficialSplit(),
        sizes=(3_334, 3_333, 3_333),
    ),
    Dataset(
        name="dtd",
        tfds="dtd",
        examples={"train": 1_880, "validation": 1_880, "test": 1_880},
        num_classes=47,
        metric="top1",
        split=OfficialSplit(),
        sizes=(1_880, 1_880, 1_880),
    ),
)
DATASETS: Mapping[str, Dataset] = {dataset.name: dataset for dataset in _ALL}


def find(name: str) -> Dataset | None:
    """Finds a data set by our name or its TFDS name; None if it is not in the paper."""
    for dataset in DATASETS.values():
        if name in (dataset.name, dataset.tfds):
            return dataset
    return None


def require_counts(
    name: str, expected: Mapping[str, int], found: Mapping[str, int]
) -> None:
    """Raises ValueError if a split does not have the expected number of examples.

    Args:
        name: name of the data set, for the error message.
        expected: number of examples of each split, or of several joined by `+`.
        found: number of examples of each split; a missing split counts as 0.
    """
    for split, count in expected.items():
        counted = sum(found.get(part, 0) for part in split.split("+"))
        if counted != count:
            raise ValueError(
                f"{name}: {split} must have {count} examples, got {counted}; "
                "replace the source files and prepare the data set again"
            )


def partition(
    dataset: Dataset, labels: Labels, *, seed: int = 0
) -> dict[str, SplitRows]:
    """Returns the rows of "train", "val" and "test" in the transfer protocol.

    Official splits are used whole. If the validation set, or all three sets, are
    sampled at random, the paper publishes only their sizes. In that case the rows are
    sampled by `numpy.random.default_rng(seed)`; report results for seed 0.

    Args:
        dataset: data set whose `split` is not None.
        labels: labels of each split in `dataset.split.splits`, in the order of the
            split's examples; for official splits only the number of labels matters.
        seed: seed of the random sample.

    Raises:
        ValueError: if the data set has no transfer protocol, the labels of a split are
            missing, or a part does not have its size in `dataset.sizes`.
    """
    if dataset.split is None or dataset.sizes is None:
        raise ValueError(
            f"the paper has no transfer protocol for {dataset.name}; choose another "
            "data set"
        )
    if missing := [split for split in dataset.split.splits if split not in labels]:
        raise ValueError(f"{dataset.name}: the labels of {missing[0]} are missing")
    rows = dataset.split.draw(labels, np.random.default_rng(seed))
    for part, size in zip(PARTS, dataset.sizes, strict=True):
        if (drawn := len(rows[part].indices)) != size:
            raise ValueError(
                f"{dataset.name}: {part} must have {size} images, got {drawn}; "
                "pass all labels of the data set that `prepare` writes"
            )
    return rows
