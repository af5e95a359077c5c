"""Study of LoGo with cheap local crops on CIFAR-10: 3,000 steps with larger crops.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_small_locals.py --out=runs/24

In the CPU study (cifar10_cpu.py) local crops have as many pixels as global crops. In
the paper local crops have 96 px and global crops 224 px, so that local crops have a
fifth of the pixels. In this study local crops have 12 px and global crops 24 px, a
quarter of the pixels. All other settings are those of the CPU study. The regressor is
that of the released code, except in `logo_default`, which has the default settings of
the configs and the joint update. `logo_reversed` is the joint update with the opposite
sign of the repulsion, at the strength of the configs. `baseline_twice` has twice the
epochs, like the supplement's longer baseline. The cells have the same names as in the
CPU study, so use another folder for --out. (Local crops of 8 px for global crops of 16
px, as in the CPU study, are too small; see docs/results.md.)
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
# defaults of base.py; the CPU study has the values of the released code
DEFAULT = {
    "logo.regressor_learning_rate": 0.03,
    "logo.noise_on": "both",
    "logo.regressor_norm": "joint",
}
# passes as in the CPU study, in units of a global crop; a local crop is a quarter
PASSES = {
    "moco": {"baseline": 4, "multicrop": 9.5, "logo_released": 11},
    "simsiam": {"baseline": 6, "multicrop": 7.5, "logo_released": 9},
}


def small(name, method, variant, **changes):
    """Returns a cell: a variant with global crops of 24 px and local crops of 12 px."""
    baseline = {"baseline": "", "multicrop": "baseline"}.get(name, "multicrop")
    crops = ALONE if variant == "baseline" else TOGETHER
    return cell(name, method, variant, baseline=baseline, **crops | changes)


def of_method(method):
    """Returns the CPU study's cells, the default regressor and the opposite sign."""
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
