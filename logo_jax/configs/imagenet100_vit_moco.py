"""MoCo and MoCo-LoGo: ViT-Small, ImageNet-100, 200 epochs, batch 256.

The LoGo paper has no vision transformer: this config is ours. MoCo v3's code
(facebookresearch/moco-v3@CONFIG.md, ViT-Small with 1,024 images per step) is the source
of the backbone, the optimizer (AdamW, learning rate 1.5e-4 x batch size / 256, weight
decay 0.1 of all parameters, linear warm-up of 40 epochs), of the random projection of
patches, the temperature and the momentum. MoCo v3's ViT-Small has 12 attention heads of
32 channels; this one has 6 of 64, as in DeiT and DINO. Crops, batch size, epochs and
queue are those of configs/imagenet100_moco.py; global crops have 14 x 14 patches of 16
px, and local crops 6 x 6, whose positions are stretched to those of the global crops.

Differences from MoCo v3, whose head is a field value away, are those of
configs/cifar10_vit_moco.py. LoGo's update is `joint`, because the released update needs
SGD. We have not run this config.

    python -m logo_jax.main --config=configs/imagenet100_vit_moco.py --workdir=runs/vit

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released (with SGD), paper. They are described in
configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    config.data.name = "imagenet100"
    config.data.batch_size = 256
    config.crops.global_crops = (2, 224, (0.4, 1.0))
    config.crops.local_crops = (2, 96, (0.08, 0.4))
    base_imagenet.set_images(config)

    config.encoder.backbone = "vit_small"
    config.encoder.patch = 16
    config.encoder.frozen_patches = True
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 128
    config.encoder.dtype = "bfloat16"
    config.batch_norm = "split:8"  # of LoGo's regressor only

    config.method.queue_size = 4096
    config.method.momentum = 0.99  # momentum of the key encoder
    config.method.temperature = 0.2
    config.method.shuffle = False  # the network has no batch norm
    config.logo.update_kind = "joint"
    config.logo.weight = 5e-4

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1.5e-4  # x batch_size / 256
    config.optimizer.weight_decay = 0.1
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 40.0
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
