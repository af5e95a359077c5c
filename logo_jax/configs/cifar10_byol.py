"""BYOL and LoGo around it: ResNet-18, CIFAR-10, 200 epochs, batch 512.

kNN top-1 in percent (k=200, T=0.1):

    variant        published          ours
    baseline       86.8               -
    logo           -                  -

Published is lightly's benchmark, best epoch, whose rates and sizes these are.

    python -m logo_jax.main --config=configs/cifar10_byol.py --workdir=runs/byol

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("byol", variant or "logo", baseline_area=(0.08, 1.0))
    config.optimizer.learning_rate = 0.12
    return base.finish(config, variant)
