"""SwAV with 2 + 2 crops: ResNet-50, ImageNet-100, 200 epochs, batch 256.

kNN / linear top-1 in percent:

    variant        published          ours
    multicrop      69.4 / 80.6        -
    logo           -                  -

Published is the supplement's Table 4, "SwAV multi-crop" with 4 crops; settings are not
told. Areas, queue, rate and decay are SwAV's for batches of 256; other than there: two
local crops, not six; a warm-up, and a cosine to 0; prototypes frozen for one epoch.
LoGo's update is joint: the released one compares two SGD steps, and LARS is none.

    python -m logo_jax.main --config=configs/imagenet100_swav.py --workdir=runs/swav

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is. The
default is multicrop.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "multicrop") -> ConfigDict:
    variant = variant or "multicrop"
    areas = {
        "global_area": (0.14, 1.0),
        "local_area": (0.05, 0.14),
        "baseline_area": (0.14, 1.0),
    }
    config = base_imagenet.get_config("swav", variant, "resnet50", 2048, **areas)
    config.data.name = "imagenet100"
    config.method.num_prototypes = 3000
    config.method.queue_size = 3840
    config.method.queue_start_epoch = 15.0
    config.optimizer.learning_rate = 0.6
    return base.finish(config, variant)
