"""MoCo and LoGo around it: ResNet-18, CIFAR-10, 200 epochs, batch 512.

Published: MoCo's own CIFAR-10 notebook, kNN after 200 epochs 82.6 % (asymmetric) and
85.3 % (symmetric), on the 128-d output. MoCo-LoGo: not known. Ours at this size: not
yet run; at a size a laptop finishes: docs/results.md.

    python -m logo_jax.prepare cifar10
    python -m logo_jax.main --config=configs/cifar10_moco.py --workdir=runs/moco

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is. The
baseline is asymmetric; add `--config.pairing=symmetric` for the symmetric one.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco", variant or "logo", baseline_area=(0.08, 1.0))
    return base.finish(config, variant)
