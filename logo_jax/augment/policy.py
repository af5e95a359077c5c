"""From a batch of stored images to its augmented crops, on the device.

Each crop's randomness is folded from (epoch key, example id, crop index), so it does
not depend on who shares the batch, in which order, or on which device. Stored images
are uint8, channels last; inside, an image is planes Float[Array, "c h w"] in [0, 1],
float32; what leaves is normalised, channels last.

Images of several sizes share a batch of canvases: an image lies in the top left corner
of its canvas, and along each axis that is too short for it, it was squeezed into the
canvas. Boxes are drawn in the pixels of the original, so aspects are the original's.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from logo_jax.augment import ops
from logo_jax.augment.boxes import CropSpec, sample_box
from logo_jax.augment.resample import resized_crop

Planes = Float[Array, "3 h w"]


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """How a crop is recoloured, blurred, mirrored and normalised.

    The defaults are MoCo v2's and LoGo's, without blur as on CIFAR-10, and ImageNet's
    channel statistics.

    Attributes:
        flip_prob: probability of mirroring left to right.
        jitter: strengths of brightness, contrast, saturation and hue changes.
        jitter_prob: probability of the colour jitter.
        grayscale_prob: probability of dropping colour.
        blur_prob: probability of a Gaussian blur.
        blur_sigma: its standard deviation is uniform in (min, max), in pixels.
        mean: of each channel, subtracted last; pixels are in [0, 1].
        std: of each channel, divides last.

    Raises:
        ValueError: if a field is out of range.
    """

    flip_prob: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_prob: float = 0.8
    grayscale_prob: float = 0.2
    blur_prob: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for name in ("flip_prob", "jitter_prob", "grayscale_prob", "blur_prob"):
            _require_probability(name, getattr(self, name))
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(
                f"jitter={self.jitter} must be four strengths >= 0, hue at most 0.5; "
                "use e.g. (0.4, 0.4, 0.4, 0.1)"
            )
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(
                f"blur_sigma={self.blur_sigma} must satisfy 0 < min <= max; "
                "use e.g. (0.1, 2.0)"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"mean={self.mean} and std={self.std} must have one value per colour, "
                "std positive; use e.g. (0.5, 0.5, 0.5) for both"
            )


def make_views(
    key: PRNGKeyArray,
    images: UInt8[Array, "b h w 3"],
    sizes: Int[Array, "b 2"],
    ids: Int[Array, " b"],
    *,
    global_crops: CropSpec,
    local_crops: CropSpec,
    augment: AugmentSpec,
) -> tuple[Float[Array, "b g s s 3"], Float[Array, "b l t t 3"]]:
    """Cuts and augments the global and the local crops of every image.

    Args:
        key: the epoch's key; the same key, image and id always give the same crops.
        images: canvases of h x w pixels, red, green, blue in 0..255; what lies beside
            an image on its canvas is never read.
        sizes: original (height, width) of each image, in pixels.
        ids: what tells an example from all others of the data set.
        global_crops: the g crops of size s; crop indices 0 to g - 1.
        local_crops: the l crops of size t, perhaps none; indices g to g + l - 1.
        augment: what is done to each crop after cutting.

    Returns:
        Normalised global crops and local crops.
    """
    specs = {"global_crops": global_crops, "local_crops": local_crops}
    boxes = jnp.concatenate(crop_boxes(key, ids, sizes, **specs), axis=1)
    boxes = _on_canvas(boxes, sizes, images.shape[1:3])
    _, look_keys = _crop_keys(key, ids, global_crops.count + local_crops.count)
    planes = jax.vmap(_to_planes)(images)

    def render(crops: slice, size: int):
        return _render(planes, boxes[:, crops], look_keys[:, crops], size, augment)

    first_local = global_crops.count
    if global_crops.size == local_crops.size:  # one computation, half the compile time
        views = render(slice(None), global_crops.size)
        return views[:, :first_local], views[:, first_local:]
    return (
        render(slice(None, first_local), global_crops.size),
        render(slice(first_local, None), local_crops.size),
    )


def crop_boxes(
    key: PRNGKeyArray,
    ids: Int[Array, " b"],
    sizes: Int[Array, "b 2"],
    *,
    global_crops: CropSpec,
    local_crops: CropSpec,
) -> tuple[Float[Array, "b g 4"], Float[Array, "b l 4"]]:
    """Returns the boxes that `make_views` cuts with the same arguments.

    Args:
        key: the epoch's key.
        ids: what tells an example from all others of the data set.
        sizes: original (height, width) of each image, in pixels.
        global_crops: the g crops with indices 0 to g - 1.
        local_crops: the l crops with indices g to g + l - 1.

    Returns:
        Boxes (top, left, height, width) of the global and the local crops, in pixels of
        the original images.
    """
    box_keys, _ = _crop_keys(key, ids, global_crops.count + local_crops.count)

    def sample(keys: jax.Array, spec: CropSpec):
        draw = functools.partial(sample_box, spec=spec)
        return jax.vmap(jax.vmap(draw, in_axes=(0, None)))(keys, sizes)

    return (
        sample(box_keys[:, : global_crops.count], global_crops),
        sample(box_keys[:, global_crops.count :], local_crops),
    )


def augment_crop(key: PRNGKeyArray, planes: Planes, spec: AugmentSpec) -> Planes:
    """Jitters, greys, blurs, mirrors and normalises one crop, in MoCo v2's order.

    Args:
        key: randomness of this crop.
        planes: one crop, in [0, 1].
        spec: how often and how much; a step of probability 0 costs nothing.

    Source: facebookresearch/moco@main_moco.py, `--aug-plus`.
    """
    steps = (
        (spec.jitter_prob, lambda key, x: ops.jitter(key, x, spec.jitter)),
        (spec.grayscale_prob, lambda _, x: ops.grayscale(x)),
        (spec.blur_prob, lambda key, x: _random_blur(key, x, spec.blur_sigma)),
        (spec.flip_prob, lambda _, x: ops.flip(x)),
    )
    for step_key, step in zip(jax.random.split(key, len(steps)), steps, strict=True):
        planes = _sometimes(step_key, *step, planes)
    return ops.normalize(planes, spec.mean, spec.std)


def prepare_eval(
    images: UInt8[Array, "b h w 3"], spec: AugmentSpec
) -> Float[Array, "b h w 3"]:
    """Scales whole images to [0, 1] and normalises them; nothing is random."""

    def prepare(image: UInt8[Array, "h w 3"]):
        return _to_channels_last(ops.normalize(_to_planes(image), spec.mean, spec.std))

    return jax.vmap(prepare)(images)


def _crop_keys(
    key: PRNGKeyArray, ids: Int[Array, " b"], count: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the box keys and the look keys of every example's crops, [b, count]."""

    def crop_keys(example_id: Int[Array, ""], crop_index: Int[Array, ""]):
        example_key = jax.random.fold_in(key, example_id)
        return jax.random.split(jax.random.fold_in(example_key, crop_index))

    over_crops = jax.vmap(crop_keys, in_axes=(None, 0))
    pairs = jax.vmap(over_crops, in_axes=(0, None))(ids, jnp.arange(count))
    return pairs[:, :, 0], pairs[:, :, 1]


def _on_canvas(
    boxes: Float[Array, "b n 4"], sizes: Int[Array, "b 2"], canvas: tuple[int, ...]
) -> Float[Array, "b n 4"]:
    """Turns boxes in original pixels into boxes in pixels of the canvas."""
    stored = jnp.minimum(sizes, jnp.array(canvas)[None])
    scale = stored.astype(jnp.float32) / sizes.astype(jnp.float32)
    return boxes * jnp.tile(scale, 2)[:, None]


def _render(
    planes: Float[Array, "b 3 h w"],
    boxes: Float[Array, "b n 4"],
    keys: jax.Array,
    size: int,
    augment: AugmentSpec,
) -> Float[Array, "b n {size} {size} 3"]:
    """Cuts the boxes out of each image and augments them, one key per box."""

    def render_one(planes: Planes, box: Float[Array, " 4"], key: PRNGKeyArray):
        crop = resized_crop(planes, box, size)
        return _to_channels_last(augment_crop(key, crop, augment))

    over_crops = jax.vmap(render_one, in_axes=(None, 0, 0))
    return jax.vmap(over_crops)(planes, boxes, keys)


def _sometimes(
    key: PRNGKeyArray,
    probability: float,
    change: Callable[[PRNGKeyArray, Planes], Planes],
    planes: Planes,
) -> Planes:
    """Applies a change with the given probability, and not at all where that is 0."""
    if probability == 0:
        return planes
    coin_key, change_key = jax.random.split(key)
    happens = jax.random.bernoulli(coin_key, probability)
    return jnp.where(happens, change(change_key, planes), planes)


def _random_blur(
    key: PRNGKeyArray, planes: Planes, sigma_range: tuple[float, float]
) -> Planes:
    low, high = sigma_range
    sigma = jax.random.uniform(key, (), minval=low, maxval=high)
    return ops.gaussian_blur(planes, sigma)


def _to_planes(image: UInt8[Array, "h w 3"]) -> Planes:
    return jnp.moveaxis(image, -1, 0).astype(jnp.float32) / 255.0


def _to_channels_last(planes: Planes) -> Float[Array, "h w 3"]:
    return jnp.moveaxis(planes, 0, -1)


def _require_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be in [0, 1]; use e.g. 0.5")
