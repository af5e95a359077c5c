"""Channel statistics and evaluation size of experiments on STL-10.

They are those of Wang & Isola for 64 px crops (SsnL/align_uniform). As in the paper,
training uses 105,000 images, of which 100,000 are unlabeled; the kNN bank is the 5,000
labeled images. `python -m logo_jax.prepare stl10` prepares the data set.
"""

from ml_collections import ConfigDict


def set_images(config: ConfigDict) -> None:
    """Sets channel statistics and the size of evaluated images."""
    config.augment.mean = (0.4409, 0.4279, 0.3868)
    config.augment.std = (0.2683, 0.2610, 0.2687)
    config.monitor.resize = 70
    config.monitor.crop = 64
