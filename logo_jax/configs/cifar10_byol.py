"""BYOL and BYOL-LoGo: ResNet-18, CIFAR-10, 200 epochs, batch 512.

kNN top-1 in percent (k=200, T=0.1):

    variant        published          ours
    baseline       86.8               -
    logo           -                  -

The published value is that of the best epoch in lightly's benchmark, from which the
learning rate, sizes and augmentation of this config are taken: all crops are augmented
in the same way, without blur. solo-learn uses BYOL's augmentation on CIFAR-10 except
for its blur, which these flags set:

    --config.augment.jitter="(0.4, 0.4, 0.2, 0.1)"
    --config.augment.second.solarize_prob=0.2

    python -m logo_jax.main --config=configs/cifar10_byol.py --workdir=runs/byol

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("byol")
    config.data.name = "cifar10"
    config.data.batch_size = 512
    config.crops.global_crops = (2, 32, (0.4, 1.0))
    config.crops.local_crops = (2, 32, (0.08, 0.6))

    config.encoder.backbone = "resnet18"
    config.encoder.stem = "cifar"
    config.encoder.head_hidden = 1024
    config.encoder.embedding_dim = 256
    config.batch_norm = "global"

    config.method.predictor_hidden = 1024
    config.method.momentum = 0.99  # initial momentum of the target encoder; ends at 1
    config.logo.update_kind = "released"

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.12  # x batch_size / 256
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
