"""Augmented crops of a batch of stored images, computed on the device.

The random key of a crop is folded from (epoch key, example id, crop index), so it does
not depend on the other images of the batch, their order or the device. Stored images
are uint8, uint16 or float32, channels last. Inside this module an image is stored as
planes Float[Array, "c h w"] in [0, 1], float32. The returned crops are normalized,
channels last.

Images of several sizes share a batch of canvases: an image is in the top left corner of
its canvas, and an axis longer than the canvas has been reduced to the canvas. Boxes are
drawn in pixels of the original image, so aspect ratios are those of the original.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from logo_jax.augment import color
from logo_jax.augment._cpu import one_by_one
from logo_jax.augment.color import AugmentSpec, Extra, augment_crop
from logo_jax.augment.random_crop import CropSpec, sample_box
from logo_jax.augment.resize import (
    in_unit_range,
    resized_crop,
    to_channels_last,
    to_planes,
)


def make_views(
    key: PRNGKeyArray,
    images: Shaped[Array, "b h w c"],
    sizes: Int[Array, "b 2"],
    ids: Int[Array, " b"],
    *,
    global_crops: CropSpec,
    local_crops: CropSpec,
    augment: AugmentSpec,
    second: AugmentSpec | None = None,
    extra: Extra | None = None,
) -> tuple[Float[Array, "b g s s c"], Float[Array, "b l t t c"]]:
    """Crops every image several times and augments the crops.

    Args:
        key: random key of the epoch; the same key, image and id always give the same
            crops.
        images: canvases of h x w pixels, with values in the range of the augmentation;
            three channels are red, green, blue. Pixels of a canvas outside its image
            are not used.
        sizes: original (height, width) of each image, in pixels.
        ids: indices of the images in their data set.
        global_crops: spec of the g crops of size s, which have crop indices 0 to g - 1.
        local_crops: spec of the l crops of size t, with indices g to g + l - 1; l may
            be 0.
        augment: augmentation of each crop.
        second: augmentation of the second global crop, instead of `augment`; None:
            `augment`.
        extra: a change of one's own of every crop; see `augment_crop`.

    Returns:
        Normalized global crops and local crops.
    """
    num_crops = global_crops.count + local_crops.count
    box_keys, color_keys = _crop_keys(key, ids, num_crops)
    boxes = jnp.concatenate(
        _sample_boxes(box_keys, sizes, global_crops, local_crops), axis=1
    )
    boxes = _on_canvas(boxes, sizes, images.shape[1:3])

    def views(crops: list[int], size: int, augment: AugmentSpec = augment):
        rows = np.array(crops, int)
        chosen = (images, boxes[:, rows], color_keys[:, rows])
        return render(*chosen, size=size, augment=augment, extra=extra)

    first = [i for i in range(global_crops.count) if second is None or i != 1]
    local = list(range(global_crops.count, num_crops))
    if global_crops.size == local_crops.size:  # one call, half the compile time
        both = views(first + local, global_crops.size)
        global_views, local_views = both[:, : len(first)], both[:, len(first) :]
    else:
        global_views = views(first, global_crops.size)
        local_views = views(local, local_crops.size)
    if second is None:
        return global_views, local_views
    of_second = views([1], global_crops.size, second)
    parts = [global_views[:, :1], of_second, global_views[:, 1:]]
    return jnp.concatenate(parts, axis=1), local_views


def crop_boxes(
    key: PRNGKeyArray,
    ids: Int[Array, " b"],
    sizes: Int[Array, "b 2"],
    *,
    global_crops: CropSpec,
    local_crops: CropSpec,
) -> tuple[Float[Array, "b g 4"], Float[Array, "b l 4"]]:
    """Returns the boxes that `make_views` crops, given the same arguments.

    Args:
        key: random key of the epoch.
        ids: indices of the images in their data set.
        sizes: original (height, width) of each image, in pixels.
        global_crops: spec of the g crops with indices 0 to g - 1.
        local_crops: spec of the l crops with indices g to g + l - 1.

    Returns:
        Boxes (top, left, height, width) of the global and the local crops, in pixels of
        the original images.
    """
    box_keys, _ = _crop_keys(key, ids, global_crops.count + local_crops.count)
    return _sample_boxes(box_keys, sizes, global_crops, local_crops)


def _sample_boxes(
    box_keys: jax.Array,
    sizes: Int[Array, "b 2"],
    global_crops: CropSpec,
    local_crops: CropSpec,
) -> tuple[Float[Array, "b g 4"], Float[Array, "b l 4"]]:
    """Draws the boxes of all crops, from one key per crop, [b, g + l]."""

    def sample(keys: jax.Array, spec: CropSpec):
        draw = functools.partial(sample_box, spec=spec)
        return jax.vmap(jax.vmap(draw, in_axes=(0, None)))(keys, sizes)

    return (
        sample(box_keys[:, : global_crops.count], global_crops),
        sample(box_keys[:, global_crops.count :], local_crops),
    )


def prepare_eval(
    images: Shaped[Array, "b h w c"], spec: AugmentSpec
) -> Float[Array, "b h w c"]:
    """Scales whole images to [0, 1] and normalizes them, without randomness."""

    def prepare(image: Shaped[Array, "h w c"]):
        planes = to_planes(in_unit_range(image, spec.value_range))
        return to_channels_last(color.normalize(planes, spec.mean, spec.std))

    return jax.vmap(prepare)(images)


def _crop_keys(
    key: PRNGKeyArray, ids: Int[Array, " b"], count: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of all boxes and those of all color changes, [b, count] each."""

    def crop_keys(example_id: Int[Array, ""], crop_index: Int[Array, ""]):
        example_key = jax.random.fold_in(key, example_id)
        return jax.random.split(jax.random.fold_in(example_key, crop_index))

    over_crops = jax.vmap(crop_keys, in_axes=(None, 0))
    pairs = jax.vmap(over_crops, in_axes=(0, None))(ids, jnp.arange(count))
    return pairs[:, :, 0], pairs[:, :, 1]


def _on_canvas(
    boxes: Float[Array, "b n 4"], sizes: Int[Array, "b 2"], canvas: tuple[int, ...]
) -> Float[Array, "b n 4"]:
    """Converts boxes in original pixels to boxes in pixels of the canvas."""
    stored = jnp.minimum(sizes, jnp.array(canvas)[None])
    scale = stored.astype(jnp.float32) / sizes.astype(jnp.float32)
    return boxes * jnp.tile(scale, 2)[:, None]


def render(
    images: Shaped[Array, "b h w c"],
    boxes: Float[Array, "b n 4"],
    keys: jax.Array,
    *,
    size: int,
    augment: AugmentSpec,
    extra: Extra | None = None,
) -> Float[Array, "b n {size} {size} c"]:
    """Cuts the boxes out of each image and augments them, with one key per box.

    Args:
        images: images with values in the range of the augmentation.
        boxes: (top, left, height, width) in pixels, inside the images.
        keys: random key of each crop, [b, n].
        size: side of the crops, in pixels.
        augment: augmentation of each crop.
        extra: a change of one's own of each crop; see `augment_crop`.

    Returns:
        Normalized crops, channels last. They are computed by `one_by_one` on CPUs and
        by `all_at_once` on other platforms, where each is the faster one; the two agree
        up to float rounding.
    """
    looks = {"size": size, "augment": augment, "extra": extra}
    # Sequential, because under `jax.vmap` both branches of a condition are computed.
    sequential = jax.custom_batching.sequential_vmap(
        functools.partial(one_by_one, **looks)
    )
    parallel = functools.partial(all_at_once, **looks)
    return jax.lax.platform_dependent(
        images, boxes, keys, cpu=sequential, default=parallel
    )


def all_at_once(
    images: Shaped[Array, "b h w c"],
    boxes: Float[Array, "b n 4"],
    keys: jax.Array,
    *,
    size: int,
    augment: AugmentSpec,
    extra: Extra | None = None,
) -> Float[Array, "b n {size} {size} c"]:
    """Cuts and augments all crops in parallel.

    Every random change (color, blur, flip, turn) is computed for every crop, and then
    used only if it is drawn for the crop.
    """

    def render_crop(image: Shaped[Array, "h w c"], box: Float[Array, " 4"], key):
        image = in_unit_range(image, augment.value_range)
        crop = resized_crop(to_planes(image), box, size)
        return to_channels_last(augment_crop(key, crop, augment, extra=extra))

    over_crops = jax.vmap(render_crop, in_axes=(None, 0, 0))
    return jax.vmap(over_crops)(images, boxes, keys)
