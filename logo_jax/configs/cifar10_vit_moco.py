"""MoCo and MoCo-LoGo: ViT-Tiny, CIFAR-10, 200 epochs, batch 512.

The LoGo paper has no vision transformer: this config is ours. MoCo v3's code
(facebookresearch/moco-v3@CONFIG.md, ViT-Small with 1,024 images per step) is the source
of the optimizer (AdamW, learning rate 1.5e-4 x batch size / 256, weight decay 0.1 of
all parameters, linear warm-up of 40 epochs), of the random projection of patches, the
temperature and the momentum. Crops, batch size, epochs and queue are those of
configs/cifar10_moco.py; patches have 4 px, so that a crop of 32 px has 8 x 8.

MoCo v3 has no queue: its negatives are the other images of a batch of 1,024 or more.
It also has a predictor, and its momentum rises to 1 by a cosine. Its projector is
`--config.encoder.head=simsiam --config.encoder.head_layers=3
--config.encoder.head_hidden=4096 --config.encoder.embedding_dim=256`; the head here is
that of configs/cifar10_moco.py, so that the network has no batch norm.

LoGo's update is `joint`, because the released update needs SGD.

We have not run this config at full size. docs/runs.md has a small ViT, trained for
six epochs on two CPU cores.

    python -m logo_jax.prepare cifar10
    python -m logo_jax.main --config=configs/cifar10_vit_moco.py --workdir=runs/vit

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released (with SGD), paper. They are described in
configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    config.data.name = "cifar10"
    config.data.batch_size = 512
    config.crops.global_crops = (2, 32, (0.4, 1.0))
    config.crops.local_crops = (2, 32, (0.08, 0.6))

    config.encoder.backbone = "vit_tiny"
    config.encoder.patch = 4
    config.encoder.frozen_patches = True
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 128
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
