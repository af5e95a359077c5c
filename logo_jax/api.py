"""The Python API: what `import logo_jax` provides."""

from logo_jax.experiment.image_encoder import ImageEncoder
from logo_jax.experiment.image_encoder import load_image_encoder as load_encoder

__all__ = ["ImageEncoder", "load_encoder"]
