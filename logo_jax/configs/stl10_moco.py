"""MoCo and MoCo-LoGo: small AlexNet, STL-10, 200 epochs, batch 256.

kNN top-1 in percent:

    variant        published          ours
    logo           76.79              -

The published value is from the supplement's Table 8, for local crops of area up to 0.4.
The paper does not state the layer, k, the resolution, the batch size and the learning
rate. The resolution of 64 px is that of Wang & Isola. Batch size, learning rate, queue,
momentum, temperature and the width of the head are those of the released code.

    python -m logo_jax.main --config=configs/stl10_moco.py --workdir=runs/stl10

The sweep of all crop areas, for the supplement's Tables 8 and 9, is
configs/sweeps/stl10_crop_ratio.py.

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_stl10


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    config.data.name = "stl10"
    config.data.batch_size = 256
    config.crops.global_crops = (2, 64, (0.4, 1.0))
    config.crops.local_crops = (2, 64, (0.08, 0.4))
    base_stl10.set_images(config)

    config.encoder.backbone = "alexnet"
    config.encoder.head_hidden = 4096
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:8"

    config.method.queue_size = 4096
    config.method.momentum = 0.999  # momentum of the key encoder
    config.method.temperature = 0.07
    config.method.shuffle = True  # shuffles the keys' images between norm groups
    config.logo.update_kind = "released"
    config.logo.weight = 5e-4

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = "cosine"
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
