"""What experiments on ImageNet-like photographs share: crops of 224 and 96 px.

Augmentation is MoCo v2's: colour, grey and flip as on CIFAR-10, and blur. The released
code has the same operations in another order, and kornia's brightness (docs/parity.md).
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(
    method: str, variant: str, backbone: str, width: int, **areas: base.Area
) -> ConfigDict:
    """All knobs of a method on 224 px crops.

    Args:
        method: simsiam, moco, byol or swav.
        variant: one of base.VARIANTS.
        backbone: resnet34 or resnet50.
        width: of its features, which MoCo's head keeps: 512 or 2048.
        **areas: of base.get_config, where they are not the paper's.
    """
    usual = {
        "local_area": (0.08, 0.4),
        "baseline_area": (0.08 if method == "moco" else 0.2, 1.0),
    }
    config = base.get_config(
        method, variant, size=224, local_size=96, **(usual | areas)
    )
    config.data.batch_size = 256
    config.augment.blur_prob = 0.5
    config.augment.mean = (0.485, 0.456, 0.406)
    config.augment.std = (0.229, 0.224, 0.225)
    config.monitor.resize = 256
    config.monitor.crop = 224
    config.encoder.backbone = backbone
    config.encoder.stem = "imagenet"
    if method != "swav":
        config.optimizer.weight_decay = 1e-4
    if method == "moco":
        config.encoder.head_hidden = width
        config.method.momentum = 0.999
        config.method.temperature = 0.07
    if method == "simsiam":
        config.encoder.head_layers = 3
        config.encoder.head_hidden = width
        config.optimizer.learning_rate = 0.05
    return config
