"""Fields of experiments on a folder of your own images, most of which are chosen.

The augmentation is that of ImageNet-like photographs. The other fields are chosen from
the images and the memory when the run begins, by the rules in docs/training.md.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base_imagenet
from logo_jax.configs.base import AUTO


def set_images(config: ConfigDict) -> None:
    """Sets the source and the augmentation, and leaves open what is chosen.

    The batch size, the sizes of crops and the size of a queue are left to the config.
    """
    config.auto = True
    config.data.source = "folder"
    config.data.name = ""
    config.data.canvas = AUTO
    base_imagenet.set_images(config)
    config.augment.blur_prob = float(AUTO)
    config.encoder.stem = "auto"
    config.train.num_epochs = AUTO
    config.train.log_every_steps = AUTO
    config.train.checkpoint_every_steps = AUTO
    config.monitor.knn_every_steps = AUTO
    config.monitor.knn = ()
    config.monitor.resize = AUTO
    config.monitor.crop = AUTO
    config.monitor.train_examples = AUTO
    config.monitor.test_examples = AUTO
    # whether a value of kNN is high depends on the images
    config.monitor.trivial_baselines = True
