"""SwAV with 2 + 2 crops: ResNet-50, ImageNet-100, 200 epochs, batch 256.

kNN / linear top-1 in percent:

    variant        published          ours
    multicrop      69.4 / 80.6        -
    logo           -                  -

The published value is from the supplement's Table 4, "SwAV multi-crop" with 4 crops,
whose settings are not stated. Crop areas, queue, learning rate, weight decay and the
prototypes, which are frozen for one epoch, are those of SwAV for batches of 256. Unlike
SwAV, this config has two local crops instead of six, a warm-up, and a cosine decay to
0. LoGo uses the joint update, because the released update compares two SGD steps, and
LARS is not SGD.

    python -m logo_jax.main --config=configs/imagenet100_swav.py --workdir=runs/swav

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo, released, paper. They are described in configs/base.py. The default is
multicrop.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "multicrop") -> ConfigDict:
    config = base.get_config("swav")
    config.data.name = "imagenet100"
    config.data.batch_size = 256
    config.crops.global_crops = (2, 224, (0.14, 1.0))
    config.crops.local_crops = (2, 96, (0.05, 0.14))
    base_imagenet.set_images(config)

    config.encoder.backbone = "resnet50"
    config.encoder.stem = "imagenet"
    config.encoder.head_hidden = 2048
    config.encoder.embedding_dim = 128
    config.encoder.dtype = "bfloat16"
    config.batch_norm = "global"

    config.method.num_prototypes = 3000
    config.method.temperature = 0.1
    config.method.epsilon = 0.05
    config.method.iterations = 3
    config.method.queue_size = 3840
    config.method.queue_start_epoch = 15.0
    config.method.frozen_epochs = 1.0
    config.logo.update_kind = "joint"
    config.logo.weight = 1e-4

    config.optimizer.name = "lars"
    config.optimizer.learning_rate = 0.6  # x batch_size / 256
    config.optimizer.weight_decay = 1e-6
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 10.0
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "multicrop", baseline_area=(0.14, 1.0))
