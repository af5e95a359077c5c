"""MoCo and LoGo around it: ResNet-34, ImageNet-100, 200 epochs, batch 256.

kNN / linear top-1 in percent:

    variant        published          ours
    baseline       64.18 / 68.48      -
    baseline_400   71.84 / 75.44      -
    swav_style     65.4 / 69.78       -
    multicrop      69.00 / 73.24      -
    logo           76.82 / 79.32      -

Published are the supplement's Tables 2 and 3; k and the probe are not told.

    python -m logo_jax.main --config=configs/imagenet100_moco.py --workdir=runs/in100

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base_imagenet.get_config("moco", variant or "logo", "resnet34", 512)
    config.data.name = "imagenet100"
    return base.finish(config, variant)
