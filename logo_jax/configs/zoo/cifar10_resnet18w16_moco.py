"""MoCo-LoGo with a ResNet-18 of width 16 on CIFAR-10, 12 epochs, batch 128.

An encoder of 0.7 million weights, whose training takes hours on two CPU cores. That of
the zoo, cifar10-resnet18w16-moco-logo, was trained by this config on the exact pixels:
64.47 % by kNN (k=20) and 65.80 % by a linear classifier of cached features, where raw
pixels have 45.94 % and the untrained network 32.85 % (docs/weights.md).

The sides of the crops are close to those of the areas that are cut out (24 and 16 of 32
pixels), which takes half the time of crops of 32 pixels; the encoder is evaluated on
whole images.

    python -m logo_jax.prepare cifar10
    python -m logo_jax.main --config=configs/zoo/cifar10_resnet18w16_moco.py

The variants are those of configs/base.py; the default is `:logo`.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    config.data.name = "cifar10"
    config.data.batch_size = 128
    config.crops.global_crops = (2, 24, (0.4, 1.0))
    config.crops.local_crops = (2, 16, (0.08, 0.6))

    config.encoder.backbone = "resnet18"
    config.encoder.stem = "cifar"
    config.encoder.width = 16
    config.encoder.head_hidden = 128
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:4"

    config.method.queue_size = 4096
    config.method.momentum = 0.99  # momentum of the key encoder
    config.method.temperature = 0.1
    config.logo.update_kind = "joint"
    config.logo.weight = 5e-4

    config.optimizer.learning_rate = 0.24  # x batch_size / 256
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup_epochs = 0.5
    config.train.num_epochs = 12
    config.train.checkpoint_every_steps = 195
    config.monitor.knn_every_steps = 780
    config.monitor.train_examples = 20_000
    config.monitor.test_examples = 5_000
    config.monitor.trivial_baselines = True
    return base.with_variant(config, variant or "logo")
