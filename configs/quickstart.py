"""SimSiam-LoGo on patches of ten photographs: minutes on two CPU cores, no download.

Label = photograph; train and test patches come from disjoint parts of each.

    python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Variants: `:baseline`, `:multicrop`, `:all_pairs`, `:logo` (default).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("simsiam", variant or "logo")
    config.data.source = "photographs"
    config.data.batch_size = 256
    config.encoder.stem = "imagenet"  # 8x8 from the first stage on: minutes on a CPU
    config.encoder.width = 16
    config.encoder.head_hidden = 256
    config.encoder.embedding_dim = 256
    config.method.predictor_hidden = 64
    config.logo.regressor_width = 64
    config.train.num_steps = 200
    config.train.log_every_steps = 5
    config.train.checkpoint_every_steps = 50
    config.monitor.knn_every_steps = 50
    config.monitor.floors = True
    return config
