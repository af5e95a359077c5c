"""Image augmentation on the device: crop boxes, resampling and color changes.

The functions are pure JAX. Inside the package an image is stored as planes (channels
first), Float[Array, "c h w"] in [0, 1], float32; `make_views` and `prepare_eval` take
and return batches with channels last.
"""

from logo_jax.augment.color import AugmentSpec, Extra, augment_crop
from logo_jax.augment.multi_crop import crop_boxes, make_views, prepare_eval
from logo_jax.augment.random_crop import CropSpec, center_box, sample_box
from logo_jax.augment.resize import resized_crop

__all__ = [
    "AugmentSpec",
    "CropSpec",
    "Extra",
    "augment_crop",
    "center_box",
    "crop_boxes",
    "make_views",
    "prepare_eval",
    "resized_crop",
    "sample_box",
]
