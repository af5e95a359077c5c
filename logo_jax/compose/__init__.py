"""From a config to typed objects: the only reader of configs, and it reads all of them.

Derived values (steps, scaled learning rates) are computed here, never typed.
"""

from logo_jax.compose.data import load_data
from logo_jax.compose.description import Description, describe
from logo_jax.compose.experiment import Experiment, experiment, knn_monitor

__all__ = [
    "Description",
    "Experiment",
    "describe",
    "experiment",
    "knn_monitor",
    "load_data",
]
