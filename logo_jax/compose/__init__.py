"""From a config to typed objects: the only reader of configs, and it reads all of them.

Derived values (steps, scaled learning rates) are computed here, never typed.
"""

from logo_jax.compose.data import load_data, make_loader, num_classes
from logo_jax.compose.description import Description, describe
from logo_jax.compose.experiment import (
    Experiment,
    experiment,
    knn_monitor,
    squares,
)
from logo_jax.compose.probe import RECIPES, Recipe

__all__ = [
    "Description",
    "RECIPES",
    "Experiment",
    "Recipe",
    "describe",
    "experiment",
    "knn_monitor",
    "load_data",
    "make_loader",
    "num_classes",
    "squares",
]
