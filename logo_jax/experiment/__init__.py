"""From a config to objects: typed config groups, factories, and a run ready to train.

Values derived from the config (number of steps, scaled learning rates) are computed
here; they are not config fields.
"""

from logo_jax.experiment.config import Config, parse
from logo_jax.experiment.data import make_loader, num_classes
from logo_jax.experiment.experiment import (
    Experiment,
    knn_monitor,
    make_eval_crops,
    make_experiment,
)
from logo_jax.experiment.spec import ExperimentSpec, make_spec

__all__ = [
    "Config",
    "Experiment",
    "ExperimentSpec",
    "knn_monitor",
    "make_eval_crops",
    "make_experiment",
    "make_loader",
    "make_spec",
    "num_classes",
    "parse",
]
