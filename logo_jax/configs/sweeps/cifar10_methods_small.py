"""SimSiam, MoCo, BYOL and SwAV on CIFAR-10, at a size for two CPU cores.

    python -m logo_jax.sweep --sweep=configs/sweeps/cifar10_methods_small.py --out=OUT

Each method is trained in the variants baseline, multicrop, all_pairs and logo (SwAV
only in the first two), with three seeds. The runs train a ResNet-10 of width 16 with
16 px crops for 200 steps. For longer runs
set train.num_steps, train.checkpoint_every_steps and monitor.knn_every_steps. Results
are in docs/runs.md.
"""

VARIANTS = ("baseline", "multicrop", "all_pairs", "logo")
SMALL = {
    "encoder.backbone": "resnet10",
    "encoder.width": 16,
    "encoder.head_hidden": 256,
    "data.batch_size": 128,
    "optimizer.learning_rate": 0.2,
    "train.num_steps": 200,
    "train.log_every_steps": 10,
    "train.checkpoint_every_steps": 200,
    "monitor.knn_every_steps": 100,
    "monitor.train_examples": 10000,
    "monitor.test_examples": 2000,
}
OF_METHOD = {
    "simsiam": {"encoder.embedding_dim": 256, "method.predictor_hidden": 64},
    "moco": {},
    "byol": {"encoder.embedding_dim": 128, "method.predictor_hidden": 256},
    # LARS and its warm-up are meant for longer runs and larger batches
    "swav": {
        "method.num_prototypes": 128,
        "method.frozen_epochs": 0.1,
        "optimizer.name": "sgd",
        "optimizer.warmup_epochs": 0.0,
    },
}


def cell(method, variant):
    """Returns the cell of a method and variant, compared with the method's baseline."""
    alone = variant == "baseline"
    crops = {
        "crops.global_crops": (2, 16, (0.2 if alone else 0.4, 1.0)),
        "crops.local_crops": (0 if alone else 2, 16, (0.08, 0.6)),
    }
    return {
        "name": f"{method}_{variant}",
        "config": f"configs/cifar10_{method}.py:{variant}",
        "overrides": SMALL | OF_METHOD[method] | crops,
        "baseline": "" if alone else f"{method}_baseline",
    }


SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": [
        cell(method, variant)
        for method in OF_METHOD
        for variant in (VARIANTS if method != "swav" else VARIANTS[:2])
    ],
}
