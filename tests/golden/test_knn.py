"""The weighted kNN classifier makes the LoGo authors' decisions."""

import re

import numpy as np
import pytest

from logo_jax.evaluation.features import Features
from logo_jax.evaluation.knn import knn_accuracy
from tests.golden import torch_names as names

SETTING = re.compile(r"top1_top5/k=(\d+),T=(.+)")


def load():
    if not (names.DATA / "knn.npz").exists():
        pytest.skip(f"LOGO_GOLDEN_DIR={names.DATA} has no knn.npz")
    return names.load("knn.npz")


def test_top1_and_top5_accuracy_are_the_authors_for_every_setting():
    golden = load()
    train, test = (
        Features(golden[f"{half}_features"], golden[f"{half}_labels"].astype(np.int32))
        for half in ("train", "test")
    )
    named = [match for key in golden if (match := SETTING.fullmatch(key))]
    settings = [(int(match[1]), float(match[2])) for match in named]
    assert settings
    num_classes = int(train.labels.max()) + 1
    accuracy = knn_accuracy(train, test, settings, num_classes=num_classes)
    for (k, t), match in zip(settings, named, strict=True):
        top1, top5 = golden[match[0]]
        # one query is 1 / 300 of all
        assert accuracy[f"k{k}_t{t:g}/top1"] == pytest.approx(top1, abs=1e-6)
        # with fewer neighbors theirs counts classes without a vote
        if k >= 5:
            assert accuracy[f"k{k}_t{t:g}/top5"] == pytest.approx(top5, abs=1e-6)
