"""The Python API: what `import logo_jax` provides."""

from logo_jax.experiment.image_encoder import ImageEncoder
from logo_jax.experiment.image_encoder import load_image_encoder as load_encoder
from logo_jax.runs.pretrain import pretrain
from logo_jax.runs.run import Run
from logo_jax.runs.training import InputError

__all__ = ["ImageEncoder", "InputError", "Run", "load_encoder", "pretrain"]
