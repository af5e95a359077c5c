"""Ablation of LoGo with MoCo on CIFAR-10: one choice of docs/parity.md at a time.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_ablation.py --out=runs/study

Sizes are those of the CPU study (cifar10_cpu.py). If both studies have the same --out,
runs that are in both are trained once. Cells near the released strength (clip_ratio
0.015; weight 5e-4 in the joint update) are compared with multicrop, which has no
repulsion. At that strength no setting of the regressor could have a measurable effect,
so the regressor's settings are compared with `clip_10`, at ten times the released
strength. A negative weight (`reversed_100`) attracts local crops.
"""

from logo_jax.configs.study.cifar10_cpu import JOINT, cell

STRONG = {"logo.clip_ratio": 0.15}


def released(name, *, over="multicrop", **changes):
    """Returns a cell of the released update, with some fields changed."""
    return cell(name, "moco", "logo", baseline=over, **changes)


def strong(name, **changes):
    """Returns a cell of the released update at ten times its strength."""
    return released(name, over="clip_10", **STRONG, **changes)


def joint(name, weight):
    """Returns a cell of the joint update, with another weight of the repulsion."""
    return released(name, **JOINT, **{"logo.weight": weight})


def multicrop(name, **changes):
    """Returns a cell of multicrop, without repulsion, with some fields changed."""
    return cell(name, "moco", "multicrop", baseline="multicrop", **changes)


SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": [
        cell("multicrop", "moco", "multicrop"),
        released("logo_released"),
        released("clip_0", **{"logo.clip_ratio": 0.0}),
        released("clip_half", **{"logo.clip_ratio": 0.0075}),
        released("clip_twice", **{"logo.clip_ratio": 0.03}),
        released("clip_10", **STRONG),
        released("ema_twice", **{"logo.update_momentum_before_repel": True}),
        released("logo_joint", **JOINT),
        joint("weight_half", 2.5e-4),
        joint("weight_twice", 1e-3),
        joint("weight_100", 0.05),
        joint("reversed_100", -0.05),
        strong("difference", **{"logo.regressor_loss": "difference"}),
        strong("cosine", **{"logo.affinity": "cosine"}),
        strong("random", **{"logo.affinity": "random"}),
        strong("no_noise", **{"logo.noise_on": "none"}),
        strong(
            "same_for_both",
            **{"logo.noise_on": "both", "logo.regressor_norm": "joint"},
        ),
        multicrop("decay_twice", **{"optimizer.weight_decay": 1e-3}),
        multicrop("stats_globals", **{"running_stats": "globals"}),
    ],
}
