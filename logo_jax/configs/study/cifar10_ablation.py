"""What of LoGo matters: the ledger's switches, on MoCo, one at a time.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_ablation.py --out=runs/study

Sizes are the CPU study's, and runs that both have are trained once where both are given
one folder. Everything is compared with multicrop, which repels nothing: the released
switches change the released update (clip_ratio 0.015), the joint ones the joint update
(weight 5e-4). A reversed weight pulls local crops together.
"""

from logo_jax.configs.study.cifar10_cpu import JOINT, cell


def released(name, **changes):
    """The released update with something changed."""
    return cell(name, "moco", "logo", baseline="multicrop", **changes)


def joint(name, weight):
    """The joint update with another weight."""
    return released(name, **JOINT, **{"logo.weight": weight})


SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": [
        cell("multicrop", "moco", "multicrop"),
        released("logo_released"),
        released("clip_0", **{"logo.clip_ratio": 0.0}),
        released("clip_half", **{"logo.clip_ratio": 0.0075}),
        released("clip_twice", **{"logo.clip_ratio": 0.03}),
        released("difference", **{"logo.regressor_loss": "difference"}),
        released("cosine", **{"logo.affinity": "cosine"}),
        released("random", **{"logo.affinity": "random"}),
        released("no_noise", **{"logo.noise_on": "none"}),
        released(
            "same_for_both",
            **{"logo.noise_on": "both", "logo.regressor_norm": "joint"},
        ),
        released("ema_twice", **{"logo.prepare_before_repel": True}),
        released("logo_joint", **JOINT),
        joint("weight_half", 2.5e-4),
        joint("weight_twice", 1e-3),
        joint("weight_100", 0.05),
        joint("reversed", -5e-4),
        joint("reversed_100", -0.05),
        cell(
            "decay_twice",
            "moco",
            "multicrop",
            baseline="multicrop",
            **{"optimizer.weight_decay": 1e-3},
        ),
        cell(
            "stats_globals",
            "moco",
            "multicrop",
            baseline="multicrop",
            **{"running_stats": "globals"},
        ),
    ],
}
