"""MoCo and LoGo around it: ResNet-50, ImageNet-100, 200 epochs, batch 256.

kNN / linear top-1 in percent:

    variant        published          ours
    baseline       66.02 / 74.84      -
    baseline_400   78.08 / 82.06      -
    logo           81.32 / 85.14      -

Published is the supplement's Table 4; k and the probe are not told.

    python -m logo_jax.main --config=configs/imagenet100_r50_moco.py --workdir=runs/r50

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base_imagenet.get_config("moco", variant or "logo", "resnet50", 2048)
    config.data.name = "imagenet100"
    return base.finish(config, variant)
