"""Study of crop areas and of swapped roles of crops, at the size of the CPU study.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_crops.py --out=runs/study

LoGo with the joint update is trained with local crops of at most 0.3 or 1.0 of the
image instead of 0.6. It is also trained with swapped roles: "global" crops of at most
0.3 of the image, and "local" crops of up to the whole image. The paper's tables are for
STL-10 (configs/sweeps/stl10_crop_ratio.py). If this study and the CPU study
(cifar10_cpu.py) have the same --out, runs that are in both are trained once.
"""

from logo_jax.configs.study.cifar10_cpu import JOINT, TITLES, cell


def joint(name, method, global_area=(0.4, 1.0), local_area=(0.08, 0.6)):
    """Returns a cell of joint LoGo with other crop areas than the cell `logo_joint`."""
    crops = {
        "crops.global_crops": (2, 16, global_area),
        "crops.local_crops": (2, 16, local_area),
    }
    over = "" if name == "logo_joint" else "logo_joint"
    return cell(name, method, "logo", baseline=over, **JOINT, **crops)


def of_method(method):
    """Returns cells: usual areas, smaller and larger local crops, swapped roles."""
    return [
        joint("logo_joint", method),
        joint("local_0.3", method, local_area=(0.08, 0.3)),
        joint("local_1.0", method, local_area=(0.08, 1.0)),
        joint("swapped_0.3", method, (0.08, 0.3), (0.08, 1.0)),
    ]


def swapped(method, published):
    """Returns the paper's claim that swapped roles lower the accuracy."""
    return {
        "text": f"{TITLES[method]}: roles swapped, globals of at most 0.3",
        "cell": f"{method}_swapped_0.3",
        "over": f"{method}_logo_joint",
        "published": published,
    }


SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": [*of_method("moco"), *of_method("simsiam")],
    # Source: LoGo, supplement, Table 9 at 0.3 minus Table 8 at 0.6 (STL-10, kNN)
    "claims": [swapped("moco", 75.03 - 77.15), swapped("simsiam", 72.43 - 76.10)],
}
