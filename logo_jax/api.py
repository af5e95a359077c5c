"""The Python API: what `import logo_jax` provides."""

from logo_jax.experiment.image_classifier import ImageClassifier
from logo_jax.experiment.image_classifier import (
    load_image_classifier as load_classifier,
)
from logo_jax.experiment.image_encoder import ImageEncoder
from logo_jax.experiment.image_encoder import load_image_encoder as load_encoder
from logo_jax.runs.pretrain import pretrain
from logo_jax.runs.run import Run
from logo_jax.runs.training import InputError

__all__ = [
    "ImageClassifier",
    "ImageEncoder",
    "InputError",
    "Run",
    "load_classifier",
    "load_encoder",
    "pretrain",
]
