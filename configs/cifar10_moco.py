"""MoCo and LoGo around it: ResNet-18, CIFAR-10, 200 epochs, batch 512.

Published: MoCo's own CIFAR-10 notebook, kNN after 200 epochs 82.6 % (asymmetric) and
85.3 % (symmetric), on the 128-d output. MoCo-LoGo: not known. Ours at this size: not
yet run; at a size a laptop finishes: docs/results.md.

    python -m logo_jax.prepare cifar10
    python -m logo_jax.main --config=configs/cifar10_moco.py --workdir=runs/moco

Variants: `--config=configs/cifar10_moco.py:baseline` (asymmetric; symmetric with
`--config.pairing=symmetric`), `:multicrop`, `:all_pairs`, `:logo` (default).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco", variant or "logo")
    config.optimizer.learning_rate = 0.03
    config.logo.weight = 5e-4
    return config
