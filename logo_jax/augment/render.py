"""Cutting given boxes out of stored images and giving each crop its look."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from logo_jax.augment.color import AugmentSpec, augment_crop
from logo_jax.augment.resize import resized_crop, resized_crop_by_blocks


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


def one_by_one(
    images: UInt8[Array, "b h w 3"],
    boxes: Float[Array, "b n 4"],
    keys: jax.Array,
    *,
    size: int,
    augment: AugmentSpec,
) -> Float[Array, "b n {size} {size} 3"]:
    """Renders crop after crop, in the cache, and makes only the changes that happen."""

    def render_image(image_boxes_keys):
        image, *boxes_keys = image_boxes_keys

        def render_crop(box_key: tuple[Float[Array, " 4"], jax.Array]):
            planes = resized_crop_by_blocks(image, box_key[0], size)
            return to_channels_last(
                augment_crop(box_key[1], planes, augment, branch=True)
            )

        return jax.lax.map(render_crop, tuple(boxes_keys))

    return jax.lax.map(render_image, (images, boxes, keys))


def to_planes(image: UInt8[Array, "h w 3"]) -> Float[Array, "3 h w"]:
    """Scales a stored image to [0, 1], channels first."""
    return jnp.moveaxis(image, -1, 0).astype(jnp.float32) / 255.0


def to_channels_last(planes: Float[Array, "3 h w"]) -> Float[Array, "h w 3"]:
    """Puts the channels of planes last."""
    return jnp.moveaxis(planes, 0, -1)
