"""SwAV and LoGo around it: ResNet-18, CIFAR-10, 200 epochs, batch 512.

Published: SwAV kNN 84.2 % (lightly's benchmark: two crops of 32 px, 512 prototypes,
k=200, T=0.1, best epoch). SwAV-LoGo: not known. SwAV's own multi-crop is `:multicrop`.
Ours at this size: not yet run.

    python -m logo_jax.main --config=configs/cifar10_swav.py --workdir=runs/swav

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("swav", variant or "logo", baseline_area=(0.08, 1.0))
    config.optimizer.name = "lars"
    config.optimizer.learning_rate = 0.3
    config.optimizer.weight_decay = 1e-6
    config.optimizer.warmup_epochs = 10.0  # LARS gives fresh biases the full rate
    return base.finish(config, variant)
