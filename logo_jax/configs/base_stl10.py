"""Images of experiments on STL-10: channel statistics and evaluation size.

They are Wang & Isola's for 64 px crops (SsnL/align_uniform). As in the paper, 105,000
images are trained on, 100,000 of them without labels; kNN's bank is the 5,000 with
labels. `python -m logo_jax.prepare stl10` writes them.
"""

from ml_collections import ConfigDict


def set_images(config: ConfigDict) -> None:
    """Sets channel statistics and the size of evaluated images."""
    config.augment.mean = (0.4409, 0.4279, 0.3868)
    config.augment.std = (0.2683, 0.2610, 0.2687)
    config.monitor.resize = 70
    config.monitor.crop = 64
