"""What STL-10's experiments share: the small AlexNet on 64 px crops.

Wang & Isola's network and statistics (SsnL/align_uniform); features are fc7's. As in
the paper, 105,000 images are learned from, 100,000 of them without labels; kNN's bank
is the 5,000 with labels. `python -m logo_jax.prepare stl10` writes them.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(method: str, variant: str) -> ConfigDict:
    config = base.get_config(
        method,
        variant,
        size=64,
        local_size=64,  # one size: fc6 takes no other
        local_area=(0.08, 0.4),
        baseline_area=(0.08, 1.0),
    )
    config.data.name = "stl10"
    config.data.batch_size = 256
    config.augment.mean = (0.4409, 0.4279, 0.3868)
    config.augment.std = (0.2683, 0.2610, 0.2687)
    config.monitor.resize = 70
    config.monitor.crop = 64
    config.encoder.backbone = "alexnet"
    config.encoder.zero_init_residual = False
    config.optimizer.weight_decay = 1e-4
    if method == "moco":  # the released code's
        config.encoder.head_hidden = 4096  # as wide as the features
        config.method.momentum = 0.999
        config.method.temperature = 0.07
    return config
