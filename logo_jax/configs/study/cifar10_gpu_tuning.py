"""Tuning for the full-size CIFAR-10 study, evaluated on 5,000 training images.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_gpu_tuning.py --out=runs/tune

It compares values of settings that the paper does not state, with one seed each. Sizes
are those of configs/study/cifar10_gpu.py; only the runs of that sweep use the test set.
The sweep has not been run yet, because no GPU was available.
"""

from logo_jax.configs.study.cifar10_gpu import cell

HELD_OUT = {"data.val_size": 5000}
WEIGHTS = {"simsiam": 1e-4, "moco": 5e-4}


def of_method(method):
    """Returns cells to tune a method.

    Multicrop has several learning rates and weight decays, and LoGo several strengths
    of the repulsion.
    """
    multicrop = f"{method}_multicrop"

    def tried(name, variant, **changes):
        over = "" if name == "multicrop" else multicrop
        return cell(
            f"{method}_{name}", method, variant, over=over, **HELD_OUT, **changes
        )

    def joint(name, weight):
        return tried(
            name, "logo", **{"logo.update_kind": "joint", "logo.weight": weight}
        )

    return [
        tried("multicrop", "multicrop"),
        *(
            tried(f"rate_{rate}", "multicrop", **{"optimizer.learning_rate": rate})
            for rate in (0.06, 0.12)
        ),
        # the released update also doubles the weight decay
        tried("decay_twice", "multicrop", **{"optimizer.weight_decay": 1e-3}),
        *(
            tried(f"clip_{ratio}", "logo", **{"logo.clip_ratio": ratio})
            for ratio in (0.015, 0.05, 0.15)
        ),
        tried(
            "regressor_released",
            "logo",
            **{"logo.noise_on": "positives", "logo.regressor_norm": "separate"},
        ),
        joint("joint", WEIGHTS[method]),
        joint("joint_100", 100 * WEIGHTS[method]),
    ]


SWEEP = {
    "metrics": ("knn/k200_t0.1/top1", "knn/k20_t0.07/top1", "linear/test_top1"),
    "seeds": (0,),
    "cells": [*of_method("simsiam"), *of_method("moco")],
}
