"""Does LoGo do what the paper says? CIFAR-10 at a size two CPU cores finish.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_cpu.py --out=runs/study

SimSiam and MoCo in each variant, three seeds; baselines twice as long too, which is as
many views as the others see. ResNet-10 of width 8, 16 px crops, batch 64, 800 steps:
one epoch. Learning rates are the best of a pilot on 40,000 training images judged on
the other 10,000 (docs/results.md, which also says what came out).
"""

STEPS = 800
SMALL = {
    "encoder.backbone": "resnet10",
    "encoder.width": 8,
    "encoder.embedding_dim": 128,
    "encoder.head_hidden": 128,
    "data.batch_size": 64,
    "train.log_every_steps": 50,
    "train.checkpoint_every_steps": 100_000,  # at the end
    "monitor.knn_every_steps": 0,
    "monitor.train_examples": 20_000,
}
OF_METHOD = {
    "moco": {"optimizer.learning_rate": 0.24},
    "simsiam": {"optimizer.learning_rate": 0.96, "method.predictor_hidden": 32},
}
GLOBAL, LOCAL = (2, 16, (0.4, 1.0)), (2, 16, (0.08, 0.6))
ALONE = {
    "crops.global_crops": (2, 16, (0.2, 1.0)),
    "crops.local_crops": (0, 16, (0.08, 0.6)),
}
TOGETHER = {"crops.global_crops": GLOBAL, "crops.local_crops": LOCAL}
JOINT = {"logo.update_kind": "joint"}


def cell(name, method, variant, *, baseline="", steps=STEPS, **changes):
    """One method in one variant, compared with a baseline."""
    crops = ALONE if variant == "baseline" else TOGETHER
    sized = SMALL | OF_METHOD[method] | crops | {"train.num_steps": steps}
    return {
        "name": f"{method}_{name}",
        "config": f"configs/cifar10_{method}.py:{variant}",
        "overrides": sized | changes,
        "baseline": f"{method}_{baseline}" if baseline else "",
    }


def of_method(method):
    """Each variant beside the baseline, what it adds beside what it builds on."""
    return [
        cell("baseline", method, "baseline"),
        cell("multicrop", method, "multicrop", baseline="baseline"),
        cell("all_pairs", method, "all_pairs", baseline="baseline"),
        cell("logo_released", method, "logo", baseline="multicrop"),
        cell("logo_joint", method, "logo", baseline="multicrop", **JOINT),
        cell("baseline_twice", method, "baseline", baseline="multicrop", steps=TWICE),
    ]


TWICE = 2 * STEPS
BOTH = {"pairing": "symmetric"}  # as the others: one_way learns from one crop in two

SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": [
        *of_method("moco"),
        cell("symmetric", "moco", "baseline", baseline="baseline", **BOTH),
        cell(
            "symmetric_twice",
            "moco",
            "baseline",
            baseline="multicrop",
            steps=TWICE,
            **BOTH,
        ),
        *of_method("simsiam"),
    ],
}
