"""SwAV and LoGo around it: ResNet-18, CIFAR-10, 200 epochs, batch 512.

kNN top-1 in percent (k=200, T=0.1):

    variant        published          ours
    baseline       84.2               -
    multicrop      -                  -
    logo           -                  -

Published is lightly's benchmark, 512 prototypes, best epoch. `:multicrop` is SwAV's
own. LoGo's update is joint: the released one compares two SGD steps, and LARS is none.

    python -m logo_jax.main --config=configs/cifar10_swav.py --workdir=runs/swav

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("swav", variant or "logo", baseline_area=(0.08, 1.0))
    config.optimizer.learning_rate = 0.3
    return base.finish(config, variant)
