"""MoCo-LoGo on patches of ten photographs; takes minutes on two CPU cores, no download.

The label of a patch is its photograph; training and test patches are from disjoint
parts of each photograph. The kNN accuracy (k=20, T=0.07) is expected to be 78 % at the
first evaluation and 82 to 85 % at the end. Without training it is 53.0 % for raw
pixels, 68.3 % for mean colors and 64.2 % for the untrained network. docs/runs.md has
the curves.

    python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

The variants are those of configs/base.py; the default is `:logo`.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    config.data.source = "photographs"
    config.data.batch_size = 128
    config.crops.global_crops = (2, 16, (0.4, 1.0))
    config.crops.local_crops = (2, 16, (0.08, 0.6))
    # weak, because color distinguishes photographs
    config.augment.jitter = (0.2, 0.2, 0.2, 0.05)
    config.augment.grayscale_prob = 0.05

    config.encoder.backbone = "resnet10"
    config.encoder.stem = "cifar"
    config.encoder.width = 16
    config.encoder.head_hidden = 128
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:8"

    config.method.queue_size = 1024
    config.method.momentum = 0.99  # momentum of the key encoder
    config.method.temperature = 0.1
    config.logo.update_kind = "joint"
    config.logo.weight = 5e-4
    config.logo.regressor_width = 64

    config.optimizer.learning_rate = 0.12  # x batch_size / 256
    config.optimizer.weight_decay = 5e-4
    config.train.num_steps = 300 if variant == "baseline_400" else 150
    config.train.log_every_steps = 5
    config.train.checkpoint_every_steps = 50
    config.monitor.knn_every_steps = 25
    config.monitor.trivial_baselines = True
    return base.with_variant(config, variant or "logo")
