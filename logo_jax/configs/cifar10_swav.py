"""SwAV and SwAV-LoGo: ResNet-18, CIFAR-10, 200 epochs, batch 512.

kNN top-1 in percent (k=200, T=0.1):

    variant        published          ours
    baseline       84.2               -
    multicrop      -                  -
    logo           -                  -

The published value is that of the best epoch in lightly's benchmark, with 512
prototypes. The variant `:multicrop` is the multi-crop of SwAV. LoGo uses the joint
update, because the released update compares two SGD steps, and LARS is not SGD.

    python -m logo_jax.main --config=configs/cifar10_swav.py --workdir=runs/swav

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("swav")
    config.data.name = "cifar10"
    config.data.batch_size = 512
    config.crops.global_crops = (2, 32, (0.4, 1.0))
    config.crops.local_crops = (2, 32, (0.08, 0.6))

    config.encoder.backbone = "resnet18"
    config.encoder.stem = "cifar"
    config.encoder.head_hidden = 2048
    config.encoder.embedding_dim = 128
    config.batch_norm = "global"

    config.method.num_prototypes = 512
    config.method.temperature = 0.1
    config.method.epsilon = 0.05
    config.method.iterations = 3
    config.method.queue_size = 0
    config.method.frozen_epochs = 1.0
    config.logo.update_kind = "joint"
    config.logo.weight = 1e-4

    config.optimizer.name = "lars"
    config.optimizer.learning_rate = 0.3  # x batch_size / 256
    config.optimizer.weight_decay = 1e-6
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 10.0
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
