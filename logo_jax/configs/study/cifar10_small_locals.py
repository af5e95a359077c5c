"""Does LoGo pay where local crops are cheap? CIFAR-10, 3,000 steps of larger crops.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_small_locals.py --out=runs/24

The CPU study's local crops have as many pixels as its global ones; the paper's have 96
px for 224, a fifth of the pixels. Here they have 12 px for 24, a quarter; all else is
the CPU study's, with the regressor as released, but for `logo_default`: the configs'
LoGo as it is today, in the joint update. `logo_reversed` is the joint update with the
sign of its repulsion turned round, at the configs' strength. `baseline_twice` has twice
the epochs, as the supplement's longer baseline. Cells have the CPU study's names, so
give them a folder of their own. (Local crops of 8 px for the CPU study's 16 are too
small: docs/results.md.)
"""

from logo_jax.configs.study.cifar10_cpu import JOINT, STEPS, cell, claims, same_compute
from logo_jax.configs.study.cifar10_gpu_tuning import WEIGHTS

ALONE = {
    "crops.global_crops": (2, 24, (0.2, 1.0)),
    "crops.local_crops": (0, 12, (0.08, 0.6)),
}
TOGETHER = {
    "crops.global_crops": (2, 24, (0.4, 1.0)),
    "crops.local_crops": (2, 12, (0.08, 0.6)),
}
# as base.py has them, where the CPU study has the released ones
DEFAULT = {
    "logo.regressor_learning_rate": 0.03,
    "logo.noise_on": "both",
    "logo.regressor_norm": "joint",
}
# as in the CPU study, in global crops' worth: a local crop's is a quarter of one
PASSES = {
    "moco": {"baseline": 4, "multicrop": 9.5, "logo_released": 11},
    "simsiam": {"baseline": 6, "multicrop": 7.5, "logo_released": 9},
}


def small(name, method, variant, **changes):
    """A variant on crops of 24 and 12 px."""
    baseline = {"baseline": "", "multicrop": "baseline"}.get(name, "multicrop")
    crops = ALONE if variant == "baseline" else TOGETHER
    return cell(name, method, variant, baseline=baseline, **crops | changes)


def of_method(method):
    """The CPU study's cells, the default and the reversed sign."""
    reversed_sign = {"logo.weight": -WEIGHTS[method]}
    return [
        small("baseline", method, "baseline"),
        small("multicrop", method, "multicrop"),
        small("all_pairs", method, "all_pairs"),
        small("logo_released", method, "logo"),
        small("logo_joint", method, "logo", **JOINT),
        small("logo_default", method, "logo", **JOINT, **DEFAULT),
        small("logo_reversed", method, "logo", **JOINT, **reversed_sign),
        small("baseline_twice", method, "baseline", steps=2 * STEPS),
        same_compute("baseline", method, "baseline", PASSES, **ALONE),
        same_compute("logo_released", method, "logo", PASSES, **TOGETHER),
    ]


SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": [*of_method("moco"), *of_method("simsiam")],
    "claims": [*claims("baseline_twice", "a baseline of twice the epochs")],
}
