"""Study of the LoGo paper's claims on CIFAR-10, at a size for two CPU cores.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_cpu.py --out=runs/study

SimSiam and MoCo are trained in each variant for equal epochs, with three seeds. The
baselines and the released update, which make other numbers of passes through the
encoder than multicrop, are also trained for as many passes (`_same_compute`). The
network is a ResNet-10 of width 8, with 16 px crops, batch 32 and 3,000 steps, which are
1.9 epochs. Sizes and learning rates were chosen in a pilot study with 45,000 training
images, evaluated on the other 5,000 training images. Pilot and results are in
docs/results.md. The regressor is that of the released code; its learning rate is that
of MoCo's encoder.
"""

STEPS = 3000
SMALL = {
    "encoder.backbone": "resnet10",
    "encoder.width": 8,
    "encoder.embedding_dim": 128,
    "encoder.head_hidden": 128,
    "data.batch_size": 32,
    "train.log_every_steps": 100,
    "train.checkpoint_every_steps": 100_000,  # at the end
    "monitor.knn_every_steps": 0,
    "monitor.train_examples": 20_000,
}
OF_METHOD = {
    "moco": {"optimizer.learning_rate": 0.24, "batch_norm": "split:4"},
    "simsiam": {"optimizer.learning_rate": 0.96, "method.predictor_hidden": 32},
}
GLOBAL, LOCAL = (2, 16, (0.4, 1.0)), (2, 16, (0.08, 0.6))
ALONE = {
    "crops.global_crops": (2, 16, (0.2, 1.0)),
    "crops.local_crops": (0, 16, (0.08, 0.6)),
}
TOGETHER = {"crops.global_crops": GLOBAL, "crops.local_crops": LOCAL}
JOINT = {"logo.update_kind": "joint"}
TITLES = {"moco": "MoCo", "simsiam": "SimSiam"}
REGRESSOR = {
    "logo.regressor_learning_rate": 0.24,
    "logo.noise_on": "positives",
    "logo.regressor_norm": "separate",
}
# MoCo's baseline has the pairing one_way, which learns from one crop of two; the
# baselines of other methods learn from both crops
BOTH = {"pairing": "symmetric"}
# passes through the encoder per image: one per crop, and two more if it has a gradient
PASSES = {
    "moco": {"baseline": 4, "symmetric": 8, "multicrop": 14, "logo_released": 20},
    "simsiam": {"baseline": 6, "multicrop": 12, "logo_released": 18},
}


def cell(name, method, variant, *, baseline="", steps=STEPS, **changes):
    """Returns a cell of the sweep: one method in one variant, and its baseline."""
    crops = ALONE if variant == "baseline" else TOGETHER
    sized = SMALL | OF_METHOD[method] | crops | {"train.num_steps": steps}
    sized |= REGRESSOR if variant == "logo" else {}
    return {
        "name": f"{method}_{name}",
        "config": f"configs/cifar10_{method}.py:{variant}",
        "overrides": sized | changes,
        "baseline": f"{method}_{baseline}" if baseline else "",
    }


def same_compute(name, method, variant, passes=PASSES, **changes):
    """Returns a cell that has as many encoder passes as multicrop, its baseline."""
    passes = passes[method]
    return cell(
        f"{name}_same_compute",
        method,
        variant,
        baseline="multicrop",
        steps=int(STEPS * passes["multicrop"] / passes[name]),
        **changes,
    )


def of_method(method):
    """Returns a method's cells; each is compared with the variant that it extends."""
    return [
        cell("baseline", method, "baseline"),
        cell("multicrop", method, "multicrop", baseline="baseline"),
        cell("all_pairs", method, "all_pairs", baseline="baseline"),
        cell("logo_released", method, "logo", baseline="multicrop"),
        cell("logo_joint", method, "logo", baseline="multicrop", **JOINT),
        same_compute("baseline", method, "baseline"),
        same_compute("logo_released", method, "logo"),
    ]


# Published differences between two cells on ImageNet-100 (ResNet-34, kNN), for MoCo and
# for SimSiam. The paper's longer baseline has twice the epochs, which for MoCo are 8
# passes; multicrop has 14.
# Source: LoGo, supplement, Tables 2 and 3
CLAIMS = [
    ("multicrop above the baseline", "multicrop", "baseline", 4.8, 4.9),
    ("repulsion on top, released", "logo_released", "multicrop", 7.8, 1.8),
    ("repulsion on top, joint", "logo_joint", "multicrop", 7.8, 1.8),
    ("all pairs against the baseline", "all_pairs", "baseline", 1.2, -7.4),
]


def claims(longer="baseline_same_compute", words="a baseline of multicrop's compute"):
    """Yields the claims for each method, including those about a longer baseline.

    Args:
        longer: name of the longer baseline's cell, without the method.
        words: description of the longer baseline.
    """
    above = [
        (f"LoGo (released) above {words}", "logo_released", longer, 5.0, 5.3),
        (f"LoGo (joint) above {words}", "logo_joint", longer, 5.0, 5.3),
    ]
    for i, method in enumerate(TITLES):
        for text, name, over, *published in [*CLAIMS, *above]:
            yield {
                "text": f"{TITLES[method]}: {text}",
                "cell": f"{method}_{name}",
                "over": f"{method}_{over}",
                "published": published[i],
            }


SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": [
        *of_method("moco"),
        cell("symmetric", "moco", "baseline", baseline="baseline", **BOTH),
        same_compute("symmetric", "moco", "baseline", **BOTH),
        *of_method("simsiam"),
    ],
    "claims": [*claims()],
}
