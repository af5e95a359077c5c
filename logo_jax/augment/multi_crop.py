"""From a batch of stored images to its augmented crops, on the device.

Each crop's randomness is folded from (epoch key, example id, crop index), so it does
not depend on the other images of the batch, their order, or the device. Stored images
are uint8, channels last; inside, an image is planes Float[Array, "c h w"] in [0, 1],
float32; the crops returned are normalized, channels last.

Images of several sizes share a batch of canvases: an image lies in the top left corner
of its canvas, and an axis that is longer than the canvas was reduced to it. Boxes are
drawn in pixels of the original image, so aspect ratios are the original's.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from logo_jax.augment import color
from logo_jax.augment._cpu import one_by_one
from logo_jax.augment.color import AugmentSpec, augment_crop
from logo_jax.augment.random_crop import CropSpec, sample_box
from logo_jax.augment.resize import resized_crop, to_channels_last, to_planes


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
    """Crops every image several times and augments the crops.

    Args:
        key: the epoch's key; the same key, image and id always give the same crops.
        images: canvases of h x w pixels, red, green, blue in 0..255. Pixels of a canvas
            beside its image are not used.
        sizes: original (height, width) of each image, in pixels.
        ids: numbers of the images in their data set.
        global_crops: the g crops of size s; crop indices 0 to g - 1.
        local_crops: the l crops of size t, perhaps none; indices g to g + l - 1.
        augment: changes of each crop.

    Returns:
        Normalized global crops and local crops.
    """
    num_crops = global_crops.count + local_crops.count
    box_keys, color_keys = _crop_keys(key, ids, num_crops)
    boxes = jnp.concatenate(
        _sample_boxes(box_keys, sizes, global_crops, local_crops), axis=1
    )
    boxes = _on_canvas(boxes, sizes, images.shape[1:3])

    def views(crops: slice, size: int):
        chosen = (images, boxes[:, crops], color_keys[:, crops])
        return render(*chosen, size=size, augment=augment)

    first_local = global_crops.count
    if global_crops.size == local_crops.size:  # one computation, half the compile time
        both = views(slice(None), global_crops.size)
        return both[:, :first_local], both[:, first_local:]
    return (
        views(slice(None, first_local), global_crops.size),
        views(slice(first_local, None), local_crops.size),
    )


def crop_boxes(
    key: PRNGKeyArray,
    ids: Int[Array, " b"],
    sizes: Int[Array, "b 2"],
    *,
    global_crops: CropSpec,
    local_crops: CropSpec,
) -> tuple[Float[Array, "b g 4"], Float[Array, "b l 4"]]:
    """The boxes that `make_views` crops with the same arguments.

    Args:
        key: the epoch's key.
        ids: numbers of the images in their data set.
        sizes: original (height, width) of each image, in pixels.
        global_crops: the g crops with indices 0 to g - 1.
        local_crops: the l crops with indices g to g + l - 1.

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
    """Draws the boxes of all crops, one key [b, g + l] for each."""

    def sample(keys: jax.Array, spec: CropSpec):
        draw = functools.partial(sample_box, spec=spec)
        return jax.vmap(jax.vmap(draw, in_axes=(0, None)))(keys, sizes)

    return (
        sample(box_keys[:, : global_crops.count], global_crops),
        sample(box_keys[:, global_crops.count :], local_crops),
    )


def prepare_eval(
    images: UInt8[Array, "b h w 3"], spec: AugmentSpec
) -> Float[Array, "b h w 3"]:
    """Scales whole images to [0, 1] and normalizes them, without randomness."""

    def prepare(image: UInt8[Array, "h w 3"]):
        return to_channels_last(color.normalize(to_planes(image), spec.mean, spec.std))

    return jax.vmap(prepare)(images)


def _crop_keys(
    key: PRNGKeyArray, ids: Int[Array, " b"], count: int
) -> tuple[jax.Array, jax.Array]:
    """The keys of every image's boxes and of its color changes, [b, count] each."""

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


def render(
    images: UInt8[Array, "b h w 3"],
    boxes: Float[Array, "b n 4"],
    keys: jax.Array,
    *,
    size: int,
    augment: AugmentSpec,
) -> Float[Array, "b n {size} {size} 3"]:
    """Cuts the boxes out of each image and augments them, one key per box.

    Args:
        images: red, green, blue in 0..255.
        boxes: (top, left, height, width) in pixels, inside the images.
        keys: randomness of each crop, [b, n].
        size: side of the crops, in pixels.
        augment: what is done to each crop after cutting.

    Returns:
        Normalised crops, channels last. On the platform for which it is compiled the
        faster of `all_at_once` and `one_by_one`, which agree to float rounding.
    """
    looks = {"size": size, "augment": augment}
    # Sequential, since under a batched condition both branches are taken.
    in_turn = jax.custom_batching.sequential_vmap(
        functools.partial(one_by_one, **looks)
    )
    at_once = functools.partial(all_at_once, **looks)
    return jax.lax.platform_dependent(images, boxes, keys, cpu=in_turn, default=at_once)


def all_at_once(
    images: UInt8[Array, "b h w 3"],
    boxes: Float[Array, "b n 4"],
    keys: jax.Array,
    *,
    size: int,
    augment: AugmentSpec,
) -> Float[Array, "b n {size} {size} 3"]:
    """Renders all crops in parallel: every change is made, then taken or left."""

    def render_crop(image: UInt8[Array, "h w 3"], box: Float[Array, " 4"], key):
        crop = resized_crop(to_planes(image), box, size)
        return to_channels_last(augment_crop(key, crop, augment))

    over_crops = jax.vmap(render_crop, in_axes=(None, 0, 0))
    return jax.vmap(over_crops)(images, boxes, keys)
