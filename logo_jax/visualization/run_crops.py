"""Crops of some images of a run, for figures."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from logo_jax.augment.color import BYTES, AugmentSpec
from logo_jax.augment.multi_crop import crop_boxes
from logo_jax.data.loader import Examples
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.methods.base import Batch
from logo_jax.parallel.program_cache import kept
from logo_jax.visualization.crop_grid import CropExample

# Compile without optimization, because the program runs once, on a few images.
COMPILE_QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def crop_examples(spec: ExperimentSpec, examples: Examples) -> list[CropExample]:
    """Returns the crops of some images in the first epoch of training.

    Args:
        spec: spec of an experiment with one seed.
        examples: images on canvases, with their sizes and numbers in the data set.
    """
    on_device = jax.tree.map(jnp.asarray, examples)
    shapes = [(x.shape, x.dtype) for x in on_device]
    identity = spec.identity and f"{spec.identity} {shapes}"
    cut = kept(make_cut(spec), "crops", identity, jax.devices()[:1])
    boxes, batch = cut(spec.keys("crops"), on_device)
    rows = zip(
        examples.images,
        examples.sizes,
        np.asarray(boxes),
        to_pixels(batch.global_crops, spec.config.augment.policy),
        to_pixels(batch.local_crops, spec.config.augment.policy),
        strict=True,
    )
    return [
        CropExample(
            stored_pixels(_off_canvas(image, size), spec.config.augment.policy),
            (int(size[0]), int(size[1])),
            *rest,
        )
        for image, size, *rest in rows
    ]


def make_cut(
    spec: ExperimentSpec,
) -> Callable[[jax.Array, Examples], tuple[jax.Array, Batch]]:
    """Returns the compiled function from a key and b images to their boxes and crops.

    The boxes are [b, n, 4].
    """

    @functools.partial(jax.jit, compiler_options=COMPILE_QUICKLY)
    def cut(key, examples):
        epoch_key = jax.random.fold_in(key, 0)
        boxes = crop_boxes(epoch_key, examples.ids, examples.sizes, **spec.crops)
        return jnp.concatenate(boxes, axis=1), spec.make_batch(key, examples, 0)

    return cut


def to_pixels(crops: jax.Array, augment: AugmentSpec) -> np.ndarray:
    """Undoes the normalization of crops [..., c]; returns colors in [0, 1]."""
    pixels = np.asarray(crops) * np.array(augment.std) + np.array(augment.mean)
    return as_colors(pixels.clip(0, 1).astype(np.float32))


def stored_pixels(images: np.ndarray, augment: AugmentSpec) -> np.ndarray:
    """Returns stored images [..., c] as colors, uint8 [..., 3]."""
    if images.dtype == np.uint8 and augment.value_range == BYTES:
        return as_colors(images)
    low, high = augment.value_range
    units = ((images.astype(np.float32) - low) / (high - low)).clip(0, 1)
    return as_colors(np.round(255 * units).astype(np.uint8))


def as_colors(pixels: np.ndarray) -> np.ndarray:
    """Returns the channels that are shown: the first three, or the first as gray."""
    if pixels.shape[-1] >= 3:
        return pixels[..., :3]
    return np.repeat(pixels[..., :1], 3, axis=-1)


def _off_canvas(image: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Returns the image of the given size without the padding of its canvas."""
    height, width = np.minimum(size, image.shape[:2])
    return image[:height, :width]
