"""From a config to typed objects: the only reader of configs, and it reads all of them.

Derived values (steps, scaled learning rates) are computed here, never typed.
"""

from logo_jax.experiment.data import load_data, make_loader, num_classes
from logo_jax.experiment.experiment import (
    Experiment,
    knn_monitor,
    make_eval_crops,
    make_experiment,
)
from logo_jax.experiment.spec import ExperimentSpec, make_spec

__all__ = [
    "ExperimentSpec",
    "Experiment",
    "make_spec",
    "make_experiment",
    "knn_monitor",
    "load_data",
    "make_loader",
    "num_classes",
    "make_eval_crops",
]
