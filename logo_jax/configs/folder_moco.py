r"""MoCo and MoCo-LoGo on a folder of your own images: ResNet-18.

    python -m logo_jax.main --config=configs/folder_moco.py --workdir=runs/mine \
        --config.data.path=DIR

The images are those of configs/folder.py, and the same fields are chosen from them when
the run begins, and the size of the queue: 4,096, or an epoch if that has fewer images.
Momentum and temperature are those of CIFAR-10: with the momentum of ImageNet-100,
0.999, the keys' encoder is an average over 1,000 steps, a third of those of a small
folder.

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py;
baseline_400 has twice the chosen epochs, and released a batch size and a queue that are
chosen, too.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_folder
from logo_jax.configs.base import AUTO


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    base_folder.set_images(config)
    config.crops.global_crops = (2, AUTO, (0.4, 1.0))
    config.crops.local_crops = (2, AUTO, (0.08, 0.4))

    config.encoder.backbone = "resnet18"
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:8"

    config.method.momentum = 0.99  # momentum of the key encoder
    config.method.temperature = 0.1
    config.method.shuffle = True  # shuffles the keys' images between norm groups
    config.logo.update_kind = "released"
    config.logo.weight = 5e-4

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = "cosine"
    base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
    config.data.batch_size = AUTO  # also if the variant has one, as the queue
    config.method.queue_size = AUTO
    return config
