"""SwAV with 2 + 2 crops: ResNet-50, ImageNet-100, 200 epochs, batch 256.

Published: kNN 69.4, linear 80.6 % (supplement's Table 4, "SwAV multi-crop", 4 crops;
settings not told). Rates, queue and areas here are SwAV's own for small batches. Ours:
not yet run.

    python -m logo_jax.main --config=configs/imagenet100_swav.py --workdir=runs/swav

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is. The
default is multicrop.
"""

from ml_collections import ConfigDict

from configs import base, base_imagenet


def get_config(variant: str = "multicrop") -> ConfigDict:
    variant = variant or "multicrop"
    config = base_imagenet.get_config("swav", variant, "resnet50", 2048)
    config.data.name = "imagenet100"
    if variant != "swav_style":
        config.crops.global_crops = (2, 224, (0.14, 1.0))
        config.crops.local_crops = (config.crops.local_crops[0], 96, (0.05, 0.14))
    config.method.num_prototypes = 3000
    config.method.queue_size = 3840
    config.method.queue_start_epoch = 15.0
    config.optimizer.name = "lars"
    config.optimizer.learning_rate = 0.6
    config.optimizer.weight_decay = 1e-6
    config.optimizer.warmup_epochs = 10.0  # LARS gives fresh biases the full rate
    return base.finish(config, variant)
