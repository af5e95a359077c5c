"""What of LoGo matters: the ledger's switches, on MoCo, one at a time.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_ablation.py --out=runs/study

Sizes are the CPU study's, and runs that both have are trained once where both are given
one folder. What is near the released strength (clip_ratio 0.015; weight 5e-4 in the
joint update) is compared with multicrop, which repels nothing. At that strength no
switch of the regressor could show, so these are made at ten times it and compared with
`clip_10`. A reversed weight pulls local crops together.
"""

from logo_jax.configs.study.cifar10_cpu import JOINT, cell

STRONG = {"logo.clip_ratio": 0.15}


def released(name, *, over="multicrop", **changes):
    """The released update with something changed."""
    return cell(name, "moco", "logo", baseline=over, **changes)


def strong(name, **changes):
    """Something changed of the released update at ten times the strength."""
    return released(name, over="clip_10", **STRONG, **changes)


def joint(name, weight):
    """The joint update with another weight."""
    return released(name, **JOINT, **{"logo.weight": weight})


def multicrop(name, **changes):
    """What repels nothing, with something changed."""
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
