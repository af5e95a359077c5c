"""SimSiam-LoGo on patches of ten photographs: minutes on two CPU cores, no download.

Label = photograph; train and test patches come from disjoint parts of each. Expected:
kNN (k=20, T=0.07) about 82 % in under 4 minutes; floors: raw pixels 53.0, mean colour
68.3, untrained network 75.1 %. One run, 2026-11-23, jax 0.10.2: 81.7 % in 3 min 22 s.

    python -m logo_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Variants: those of configs/base.py; `:logo` is the default.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("simsiam", variant or "logo", size=16, local_size=16)
    config.data.source = "photographs"
    config.data.batch_size = 256
    config.augment.jitter = (0.2, 0.2, 0.2, 0.05)  # colour tells photographs apart
    config.augment.grayscale_prob = 0.05
    config.encoder.backbone = "resnet10"
    config.encoder.width = 16
    config.encoder.head_hidden = 256
    config.encoder.embedding_dim = 256
    config.method.predictor_hidden = 64
    config.logo.regressor_width = 64
    config.logo.update_kind = config.logo.update_kind.replace("released", "joint")
    config.optimizer.learning_rate = 0.2
    config.train.num_steps = 300 if variant == "baseline_400" else 150
    config.train.log_every_steps = 5
    config.train.checkpoint_every_steps = 50
    config.monitor.knn_every_steps = 25
    config.monitor.floors = True
    return base.finish(config, variant)
