"""From a config to typed objects: the only reader of configs, and it reads all of them.

Derived values (steps, scaled learning rates) are computed here, never typed.
"""

from logo_jax.experiment.data import load_data, make_loader, num_classes
from logo_jax.experiment.experiment import Experiment, experiment, knn_monitor, squares
from logo_jax.experiment.probe import RECIPES, Recipe
from logo_jax.experiment.spec import Description, describe

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
