"""SimSiam and LoGo around it: ResNet-50, ImageNet-100, 200 epochs, batch 256.

Transfer to Flowers-102 / Caltech-101, mean per class in percent:

    variant        published          ours
    baseline       91.43 / 83.44      -
    logo           93.02 / 84.01      -

Published is the supplement's Table 5, which has eight more data sets.

    python -m logo_jax.main --config=configs/imagenet100_r50_simsiam.py --workdir=r50

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base_imagenet.get_config("simsiam", variant or "logo", "resnet50", 2048)
    config.data.name = "imagenet100"
    return base.finish(config, variant)
