"""Augmentation and evaluation size of experiments on ImageNet-like photographs.

The augmentation is that of MoCo v2: color jitter, grayscale and flip as on CIFAR-10,
and blur. The released code has the same operations in another order, and the
brightness operation of kornia (docs/parity.md).
"""

from ml_collections import ConfigDict


def set_images(config: ConfigDict) -> None:
    """Sets augmentation, channel statistics and the size of evaluated images."""
    config.augment.blur_prob = 0.5
    config.augment.mean = (0.485, 0.456, 0.406)
    config.augment.std = (0.229, 0.224, 0.225)
    config.monitor.resize = 256
    config.monitor.crop = 224
