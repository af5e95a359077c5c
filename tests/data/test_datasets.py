import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from logo_jax.data.datasets import DATASETS, find, partition, require_counts
from logo_jax.data.splits import OfficialSplit, PerClassSplit, ValidationSplit

TABLE_1 = {
    "food101": (68175, 7575, 25250, 101, "top1"),
    "mit67": (4690, 670, 1340, 67, "top1"),
    "pets": (2940, 740, 3669, 37, "mean_per_class"),
    "flowers102": (1020, 1020, 6149, 102, "mean_per_class"),
    "caltech101": (2525, 505, 5647, 101, "mean_per_class"),
    "cars196": (6494, 1650, 8041, 196, "top1"),
    "aircraft": (3334, 3333, 3333, 100, "mean_per_class"),
    "dtd": (1880, 1880, 1880, 47, "top1"),
}
CUT = [dataset for dataset in DATASETS.values() if dataset.split]
BACKGROUND_IMAGES = 467


def labels_of(dataset):
    """Returns the right number of labels, balanced over classes up to the remainder."""
    labels = {}
    for split in dataset.split.splits:
        count = dataset.examples[split]
        if isinstance(dataset.split, PerClassSplit):
            labels[split] = np.arange(count - BACKGROUND_IMAGES) % dataset.num_classes
            labels[split] += labels[split] >= dataset.split.left_out
            background = np.full(BACKGROUND_IMAGES, dataset.split.left_out)
            labels[split] = np.concatenate([labels[split], background])
        else:
            labels[split] = np.arange(count) % dataset.num_classes
    return labels


@pytest.mark.parametrize("name", TABLE_1)
def test_sizes_classes_and_metric_are_those_of_table_1(name):
    dataset = DATASETS[name]
    assert dataset.sizes is not None
    assert (*dataset.sizes, dataset.num_classes, dataset.metric) == TABLE_1[name]


@pytest.mark.parametrize("dataset", CUT, ids=lambda dataset: dataset.name)
def test_the_sizes_add_up_to_the_examples_that_prepare_must_find(dataset):
    train, val, test = dataset.sizes
    if isinstance(dataset.split, OfficialSplit):
        assert [train, val, test] == [dataset.examples[s] for s in dataset.split.splits]
    elif isinstance(dataset.split, ValidationSplit):
        classes = dataset.num_classes if dataset.split.per_class else 1
        assert val == dataset.split.count * classes
        assert train + val == dataset.examples[dataset.split.train]
        assert test == dataset.examples[dataset.split.test]
    else:
        assert train == dataset.split.train * dataset.num_classes
        assert val == dataset.split.val * dataset.num_classes
        assert train + val + test + BACKGROUND_IMAGES == dataset.examples["train+test"]


def test_pretraining_on_stl10_learns_from_105000_images():
    examples = DATASETS["stl10"].examples
    learnt = DATASETS["stl10"].pretrain.split("+")
    assert sum(examples[split] for split in learnt) == 105_000


@pytest.mark.parametrize("dataset", CUT, ids=lambda dataset: dataset.name)
def test_parts_have_the_published_sizes_and_share_no_row(dataset):
    parts = partition(dataset, labels_of(dataset))
    sizes = tuple(len(parts[part].indices) for part in ("train", "val", "test"))
    assert sizes == dataset.sizes
    rows = [(split, i) for split, indices in parts.values() for i in indices]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    ("name", "part", "each"),
    [
        *(("food101", "val", 75), ("mit67", "val", 10), ("pets", "val", 20)),
        *(("caltech101", "train", 25), ("caltech101", "val", 5)),
    ],
)
def test_sampled_parts_are_balanced_over_classes(name, part, each):
    dataset = DATASETS[name]
    labels = labels_of(dataset)
    split, indices = partition(dataset, labels)[part]
    classes, counts = np.unique(labels[split][indices], return_counts=True)
    assert len(classes) == dataset.num_classes
    assert set(counts) == {each}


def test_caltech_s_background_is_in_no_part():
    dataset = DATASETS["caltech101"]
    labels = labels_of(dataset)
    for split, indices in partition(dataset, labels).values():
        assert dataset.split.left_out not in labels[split][indices]


def test_the_label_left_out_of_caltech_is_its_background(tmp_path):
    features = tfds.builder("caltech101", data_dir=tmp_path).info.features
    left_out = DATASETS["caltech101"].split.left_out
    assert features["label"].int2str(left_out) == "background_google"


def test_the_draw_is_decided_by_the_seed_alone():
    dataset = DATASETS["cars196"]
    labels = labels_of(dataset)
    first, again, other = (
        partition(dataset, labels, seed=seed)["val"].indices for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)
    assert set(first) != set(range(len(first)))


def test_a_wrong_number_of_labels_is_an_error_with_both_numbers():
    dataset = DATASETS["pets"]
    labels = labels_of(dataset) | {"test": np.zeros(3668, int)}
    with pytest.raises(ValueError, match="pets: test must have 3669 images, got 3668"):
        partition(dataset, labels)
    with pytest.raises(ValueError, match="pets: the labels of test are missing"):
        partition(dataset, {"train": labels["train"]})


def test_a_class_with_too_few_images_is_refused():
    dataset = DATASETS["caltech101"]
    labels = labels_of(dataset)
    pool = labels["train+test"]
    pool[np.flatnonzero(pool == 0)[24:]] = 1
    with pytest.raises(
        ValueError, match="caltech101: train must have 2525 images, got 2524"
    ):
        partition(dataset, labels)


def test_a_data_set_without_transfer_protocol_is_refused():
    with pytest.raises(ValueError, match="no transfer protocol for coco"):
        partition(DATASETS["coco"], {})


def test_a_data_set_is_found_by_our_name_and_by_that_of_tfds():
    assert find("coco") is find("coco/2017") is DATASETS["coco"]
    assert find("oxford_iiit_pet") is DATASETS["pets"]
    assert find("mnist") is None


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ({"train": 3, "test": 4}, None),
        ({"train": 2, "test": 5, "other": 9}, None),
        ({"train": 3, "test": 3}, r"x: train\+test must have 7 examples, got 6"),
        ({"train": 3}, r"x: train\+test must have 7 examples, got 3"),
    ],
)
def test_wrong_counts_are_an_error_with_both_numbers(found, error):
    if error is None:
        require_counts("x", {"train+test": 7}, found)
    else:
        with pytest.raises(ValueError, match=error):
            require_counts("x", {"train+test": 7}, found)


def test_importing_the_catalog_imports_neither_tfds_nor_jax():
    code = (
        "import sys, logo_jax.data.datasets; "
        "sys.exit(sum(m in sys.modules for m in ('tensorflow_datasets', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TFDS_WITHOUT_TENSORFLOW = [
    name for name in DATASETS if name not in ("coco", "mit67", "aircraft")
]


@pytest.mark.parametrize(
    "name", [name for name in TFDS_WITHOUT_TENSORFLOW if name != "imagenet100"]
)
def test_stock_tfds_knows_each_name_and_as_many_classes(name, tmp_path):
    dataset = DATASETS[name]
    features = tfds.builder(dataset.tfds, data_dir=tmp_path).info.features
    label = features["labels"].feature if name == "voc2007" else features["label"]
    background = isinstance(dataset.split, PerClassSplit)
    assert label.num_classes == dataset.num_classes + background
