"""Study of the LoGo paper's claims on CIFAR-10 over 20 epochs, for one CPU core a run.

    python -m logo_jax.sweep --sweep=configs/study/cifar10_epochs.py --out=runs/epochs

Ten times as long as the CPU study (cifar10_cpu.py), with its network, a ResNet-10 of
width 8, and its crops of 16 px. The batch size is 128 instead of 32, which takes less
than half the time per image on one core. Learning rates were chosen in a pilot study
with 45,000 training images, evaluated on the other 5,000 (docs/results.md). Every run
is evaluated eight times, so that differences are known during the training, too.

MoCo's baselines are the symmetric one with as many passes through the encoder as
multicrop (`symmetric_same_compute`), and the asymmetric one with twice the epochs
(`baseline_twice`). Three cells lead from multicrop to the released update, and each is
compared with the one before: `decay_twice` has twice the weight decay; `clip_0` is the
released update without its repulsion, which trains as `decay_twice` does, with other
random numbers, because its second optimizer only accumulates weight decay;
`logo_released` has the repulsion. Both have the regressor of the released code, with
MoCo's learning rate. `logo_joint` and `logo_cosine` have the joint update and the
default regressor, or no regressor.

Several processes of the command divide the runs among them. With `taskset -c N` before
each command, each process has one core.
"""

from logo_jax.configs.study.cifar10_cpu import BOTH, JOINT, PASSES, cell, claims
from logo_jax.configs.study.cifar10_small_locals import DEFAULT

BATCH = 128
EVALUATIONS = 8
STEPS = 20 * (50_000 // BATCH)
RATES = {"moco": 0.12, "simsiam": 0.24}  # x batch_size / 256


def long(name, method, variant, baseline="", steps=STEPS, **changes):
    """Returns a cell with larger batches and EVALUATIONS evaluations by kNN."""
    between = steps // EVALUATIONS
    sized = {
        "data.batch_size": BATCH,
        "optimizer.learning_rate": RATES[method],
        "train.checkpoint_every_steps": between,
        "train.keep_newest": EVALUATIONS,  # for benchmarks.affinity
        "monitor.knn_every_steps": between,
    }
    return cell(
        name,
        method,
        variant,
        baseline=baseline,
        steps=between * EVALUATIONS,
        **sized | changes,
    )


def moco(name, variant, baseline="multicrop", **changes):
    """Returns a cell of MoCo."""
    return long(name, "moco", variant, baseline, **changes)


of_moco = PASSES["moco"]
RELEASED = {"logo.regressor_learning_rate": RATES["moco"]}
SAME_COMPUTE = {"steps": STEPS * of_moco["multicrop"] // of_moco["symmetric"]}
CELLS = [
    moco("multicrop", "multicrop", baseline=""),
    moco("symmetric_same_compute", "baseline", **SAME_COMPUTE, **BOTH),
    moco("baseline_twice", "baseline", steps=2 * STEPS),
    moco("logo_joint", "logo", **JOINT, **DEFAULT),
    moco("logo_cosine", "logo", **JOINT, **DEFAULT, **{"logo.affinity": "cosine"}),
    moco("decay_twice", "multicrop", **{"optimizer.weight_decay": 1e-3}),
    moco("clip_0", "logo", "decay_twice", **RELEASED, **{"logo.clip_ratio": 0.0}),
    moco("logo_released", "logo", "clip_0", **RELEASED),
    long("baseline", "simsiam", "baseline"),
    long("multicrop", "simsiam", "multicrop", "baseline"),
    long("logo_joint", "simsiam", "logo", "multicrop", **JOINT, **DEFAULT),
]
NAMES = {cell["name"] for cell in CELLS}
PUBLISHED = [
    claim
    for claim in claims("baseline_twice", "a baseline of twice the epochs")
    if {claim["cell"], claim["over"]} <= NAMES
]
# Source: LoGo, supplement, Tables 2 and 3. The paper attributes the 7.8 points of the
# released update to its repulsion.
MORE_CLAIMS = [
    {
        "text": "MoCo: a baseline of twice the epochs above multicrop",
        "cell": "moco_baseline_twice",
        "over": "moco_multicrop",
        "published": 2.8,
    },
    {
        "text": "MoCo: repulsion alone, released, at equal weight decay",
        "cell": "moco_logo_released",
        "over": "moco_clip_0",
        "published": 7.8,
    },
]

SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0, 1, 2),
    "cells": CELLS,
    "claims": [*MORE_CLAIMS, *PUBLISHED],
}
