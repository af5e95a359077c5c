"""Random crop boxes with the distribution of torchvision's RandomResizedCrop.

A box is (top, left, height, width) in pixels. Its entries are whole numbers in float32,
which is exact for the sides of any image and keeps the area from overflowing.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

_NUM_TRIES = 10


@dataclasses.dataclass(frozen=True)
class CropSpec:
    """One group of crops of an image.

    Attributes:
        count: number of crops per image, >= 0.
        size: side of the square output, in pixels.
        scale: (min, max) area of the box as a fraction of the image, in (0, 1].
        aspect: (min, max) width / height of the box.

    Raises:
        ValueError: if a field is out of range.
    """

    count: int
    size: int
    scale: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(
                f"crop count={self.count} must not be negative; use 0 for no crops"
            )
        if self.size < 1:
            raise ValueError(
                f"crop size={self.size} must be at least 1 pixel; use e.g. 32"
            )
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                f"crop scale={self.scale} must satisfy 0 < min <= max <= 1; "
                "use e.g. (0.2, 1.0)"
            )
        if not 0 < self.aspect[0] <= self.aspect[1] < float("inf"):
            raise ValueError(
                f"crop aspect={self.aspect} must satisfy 0 < min <= max; "
                "use e.g. (0.75, 1.33)"
            )


def sample_box(
    key: PRNGKeyArray, size: Int[Array, " 2"], spec: CropSpec
) -> Float[Array, " 4"]:
    """Draws a box of random area, shape and position inside an image.

    The area is uniform in `spec.scale`, the aspect ratio is log-uniform in
    `spec.aspect`, and the position is uniform over all whole-pixel offsets. The result
    is the first of ten draws that fits the image, or the box of `center_box` if none
    fits.

    Args:
        key: random key of this box.
        size: (height, width) of the image, in pixels; may be traced.
        spec: ranges of area and aspect; its count and size are not used.

    Returns:
        (top, left, height, width), in pixels.

    Source: pytorch/vision@torchvision/transforms/transforms.py, RandomResizedCrop.
    """
    extent_key, place_key = jax.random.split(key)
    image = size.astype(jnp.float32)
    extents = _sample_extents(extent_key, jnp.prod(image), spec)
    fits = jnp.all((extents > 0) & (extents <= image[None]), axis=1)
    extent = extents[jnp.argmax(fits)]
    place = jnp.floor(jax.random.uniform(place_key, (2,)) * (image - extent + 1))
    box = jnp.concatenate([place, extent])
    return jnp.where(jnp.any(fits), box, center_box(size, spec.aspect))


def center_box(
    size: Int[Array, " 2"], aspect: tuple[float, float]
) -> Float[Array, " 4"]:
    """Returns the largest centered box whose width / height is in the range `aspect`.

    It is the whole image if the aspect ratio of `size`, (height, width), is in the
    range.

    Source: the fallback of pytorch/vision@torchvision/transforms/transforms.py,
        RandomResizedCrop.
    """
    image = size.astype(jnp.float32)
    longest = jnp.stack([image[1] / aspect[0], image[0] * aspect[1]])
    extent = jnp.minimum(image, jnp.maximum(1.0, jnp.round(longest)))
    return jnp.concatenate([jnp.floor((image - extent) / 2), extent])


def _sample_extents(
    key: PRNGKeyArray, image_area: Float[Array, ""], spec: CropSpec
) -> Float[Array, "tries 2"]:
    """Draws candidate (height, width) of a box; some may not fit the image."""
    area_key, aspect_key = jax.random.split(key)
    low, high = spec.scale
    area = jax.random.uniform(area_key, (_NUM_TRIES,), minval=low, maxval=high)
    area = area * image_area
    low, high = np.log(spec.aspect).tolist()
    log_aspect = jax.random.uniform(aspect_key, (_NUM_TRIES,), minval=low, maxval=high)
    aspect = jnp.exp(log_aspect)
    return jnp.round(jnp.sqrt(jnp.stack([area / aspect, area * aspect], axis=1)))
